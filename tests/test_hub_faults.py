"""A hub that answers 500 now and then is asked again; one that stops in the middle of a file ends in one line."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.stand_ins.hub import Faults, Hub
from tests.stand_ins.recipe import DATASET, ROWS, TIED, UNTIED

READ = f"""
from datamodules.rows.sources import open_source
print(sum(1 for _ in open_source("{DATASET}", None, "train", 0.1, 0).rows()))
"""
LOAD = """
import hub
print(len(list(hub.model_folder("{}", weights=True).glob("*.safetensors"))))
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

pytestmark = pytest.mark.slow
Done = subprocess.CompletedProcess[str]
OnHub = Callable[..., Done]


@pytest.fixture
def on_hub(hub: Hub, tmp_path: Path) -> Iterator[OnHub]:
    """Run code in a process for which the hub has these faults; a minute at most."""

    def run(code: str, **faults: int) -> Done:
        hub.faults = Faults(**faults)
        return subprocess.run(
            [sys.executable, "-c", AS_CLI_DOES, code],
            cwd=ROOT, env=hub.environment(tmp_path), capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    yield run
    hub.faults = Faults()


@pytest.mark.parametrize("every", [2, 5])
def test_a_data_set_is_read_whole_although_the_hub_answers_500_now_and_then(every: int, on_hub: OnHub) -> None:
    done = on_hub(READ, fail_every=every)
    assert (done.returncode, done.stdout) == (0, f"{ROWS}\n"), done.stderr


@pytest.mark.parametrize(("code", "key"), [(READ, "data.source"), (LOAD.format(TIED), "model.name")])
def test_a_hub_that_answers_500_always_ends_in_one_line(code: str, key: str, on_hub: OnHub) -> None:
    done = on_hub(code, fail_every=1)
    assert (done.returncode, done.stdout) == (2, "")
    assert [line.partition(":")[0] for line in done.stderr.splitlines()] == ["error"], done.stderr
    assert done.stderr.startswith(f"error: {key}: ")
    assert "answers 500" in done.stderr


def test_a_data_set_that_stops_in_the_middle_of_a_file_is_not_taken_for_whole(on_hub: OnHub) -> None:
    done = on_hub(READ, stop_after=100_000)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: data.source: '{DATASET}' cannot be read")
    assert f"hf download --repo-type dataset {DATASET}" in line


def test_a_model_that_stops_in_the_middle_of_a_file_is_not_taken_for_whole(on_hub: OnHub) -> None:
    done = on_hub(LOAD.format(TIED), stop_after=100_000)
    assert (done.returncode, done.stdout) == (2, "")
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert f"model.name: '{TIED}'" in errors[0]
    assert "Traceback" not in done.stderr


def test_a_model_whose_download_breaks_off_continues_where_it_stopped(on_hub: OnHub) -> None:
    """The client keeps pieces of 10 MB; these weights are 19 MB."""
    done = on_hub(LOAD.format(UNTIED), stop_after=12_000_000)
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, "answers 401 (it needs a login, or the token is wrong). Run `hf auth login`"),
        (403, "answers 403 (this account may not read it). Run `hf auth login`"),
        (429, "answers 429 (too many requests). Wait some minutes"),
        (503, "answers 503 (the hub is overloaded)"),
    ],
)
@pytest.mark.parametrize(("code", "key"), [(READ, "data.source"), (LOAD.format(TIED), "model.name")])
def test_the_answer_of_the_hub_is_the_reason(status: int, words: str, code: str, key: str, on_hub: OnHub) -> None:
    done = on_hub(code, status=status)
    assert done.stderr.startswith(f"error: {key}: ") and len(done.stderr.splitlines()) == 1, done.stderr
    # Some answers of 401 mean a repository that does not exist, or is private
    assert words in done.stderr or (status == 401 and "hf auth login" in done.stderr), done.stderr


def test_a_hub_that_is_too_slow_is_said_to_be_slow(on_hub: OnHub) -> None:
    done = on_hub("import hub; hub.PROBE_SECONDS = 0.3\n" + LOAD.format(TIED), wait=2)
    assert "does not answer in time (" in done.stderr, done.stderr


@pytest.mark.parametrize("name", ["./qwen", "../a/b", "~/qwen", ".hidden/x", "a/b/c"])
def test_a_mistyped_path_is_not_looked_for_on_the_hub(name: str, on_hub: OnHub) -> None:
    done = on_hub(LOAD.format(name))
    assert f"model.name: '{name}' does not exist. Give the folder of a model" in done.stderr
    assert "hf download" not in done.stderr
