"""serve, as a process with a trained run: the official client gets what `generate` prints."""

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cli import main
from commands.generate import answers
from commands.load import open_run
from commands.prompts import plain
from lightning_modules.generation.decoding import DecodingSettings
from tests.conftest import ROOT

openai = pytest.importorskip("openai")
pytest.importorskip("uvicorn")
pytestmark = pytest.mark.slow
PROMPTS = ["Solve x + 5 = 12", "Solve x - 3 = 4"]


@contextmanager
def served(folder: Path, *more: str) -> Iterator[tuple[subprocess.Popen[str], Any]]:
    """Start serve on a free port; give its process and a client."""
    args = [sys.executable, str(ROOT / "cli.py"), "serve", "--port", "0", "--device", "cpu", *more]
    process = subprocess.Popen(args, cwd=folder, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        said = ""
        while not (found := re.search(r"at (http://127\.0\.0\.1:\d+/v1)", said)):
            line = process.stderr.readline()
            assert line, f"serve ended: {said}"
            said += line
        yield process, openai.OpenAI(base_url=found[1], api_key="none", max_retries=0, timeout=60)
    finally:
        process.kill()
        process.wait()


def test_a_client_gets_what_generate_prints(in_trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    here = in_trained.parents[2]
    capsys.readouterr()
    assert main(["generate", "--prompt", *PROMPTS, "--max_new_tokens", "40", "--jsonl", "--device", "cpu"]) == 0
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    base_model, settings = open_run(None, None, "runs").load(trained=False), DecodingSettings(max_new_tokens=40)
    with served(here, "--base", "--max_new_tokens", "40") as (process, client):
        tuned, base = (one.id for one in client.models.list())
        assert tuned == f"demo/{in_trained.name}" and base == "base"
        for expected in printed:
            messages = [{"role": "user", "content": expected["prompt"]}]
            choice = client.chat.completions.create(model=tuned, messages=messages).choices[0]
            (untrained,) = answers(
                base_model, [plain(expected["prompt"])], settings, None, 1, lambda ended, tokens: None
            )
            other = client.chat.completions.create(model=base, messages=messages).choices[0]
            assert (other.message.content, other.ended_by) == (untrained.answer.strip(), untrained.ended_by)
            if expected["well_formed"] or "<think>" not in expected["raw"]:
                assert choice.message.content == expected["answer"]
                assert choice.message.thoughts == expected["thoughts"]
            assert choice.ended_by == expected["ended_by"]
        stream = client.chat.completions.create(
            model=tuned, messages=messages, stream=True, max_tokens=900, extra_body={"min_thinking": 890}
        )
        next(iter(stream))
        process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        assert process.wait(timeout=40) == 143
        assert time.monotonic() - began < 20


def test_ctrl_c_stops_the_server(in_trained: Path) -> None:
    with served(in_trained.parents[2]) as (process, client):
        assert [one.id for one in client.models.list()] == [f"demo/{in_trained.name}"]
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=40) == 130
        assert process.stderr is not None
        assert process.stderr.read() == "stopped by SIGINT\n"


def test_a_context_beyond_the_model_is_refused(in_trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["serve", "--port", "0", "--context", "1025"]) == 2
    assert "--context: '1025' is more than the 1,024 positions of the model" in capsys.readouterr().err
