"""A hub that answers 500 now and then is asked again; one that stops in the middle of a file ends in one line."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT

SET = "Magpie-Align/Magpie-Reasoning-V2-250K-CoT-Deepseek-R1-Llama-70B"
MODEL = "Qwen/Qwen2-1.5B-Instruct"
READ = f"""
from datamodules.rows.sources import open_source
print(sum(1 for _ in open_source("{SET}", None, "train", 0.1, 0).rows()))
"""
LOAD = f"""
import hub
print(len(list(hub.model_folder("{MODEL}", weights=True).glob("*.safetensors"))))
"""
AS_CLI_DOES = """
import os, sys
from errors import UserError
try:
    exec(sys.argv[1])
except UserError as error:
    print(f"error: {error}", file=sys.stderr, flush=True)
    os._exit(2)
"""

Done = subprocess.CompletedProcess[str]
OnHub = Callable[..., Done]


@pytest.fixture
def on_hub(shared: Path, hub_root: Path, tmp_path: Path) -> Iterator[OnHub]:
    """Runs code in a process for which the hub has these faults; a minute at most."""
    servers = []

    def run(code: str, *faults: str) -> Done:
        command = [sys.executable, str(shared / "mini_hub.py"), str(hub_root), *faults]
        servers.append(server := subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        assert server.stdout is not None
        endpoint = server.stdout.readline().partition("HF_ENDPOINT=")[2].strip()
        environment = {k: v for k, v in os.environ.items() if k != "HF_HUB_OFFLINE"}
        environment |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path)}
        return subprocess.run(
            [sys.executable, "-c", AS_CLI_DOES, code],
            cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60,
        )  # fmt: skip

    yield run
    for server in servers:
        server.kill()
        server.wait()


@pytest.mark.parametrize("every", [2, 5])
def test_a_set_is_read_whole_although_the_hub_answers_500_now_and_then(every: int, on_hub: OnHub) -> None:
    done = on_hub(READ, "--fail-every", str(every))
    assert (done.returncode, done.stdout) == (0, "550\n"), done.stderr


def test_a_set_that_stops_in_the_middle_of_a_file_is_not_taken_for_whole(
    on_hub: OnHub,
) -> None:
    done = on_hub(READ, "--cut", "100000")
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: data.source: '{SET}' cannot be read")
    assert f"hf download --repo-type dataset {SET}" in line


def test_a_model_that_stops_in_the_middle_of_a_file_is_not_taken_for_whole(
    on_hub: OnHub,
) -> None:
    done = on_hub(LOAD, "--cut", "100000")
    assert (done.returncode, done.stdout) == (2, "")
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert f"model.name: '{MODEL}'" in errors[0]
    assert "Traceback" not in done.stderr


def test_a_model_whose_download_breaks_off_goes_on_where_it_stopped(
    on_hub: OnHub,
) -> None:
    done = on_hub(LOAD, "--cut", "12000000")
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr
