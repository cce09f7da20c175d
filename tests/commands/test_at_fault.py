"""An error of the disk names the setting whose path it comes from."""

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import cli
from commands.at_fault import path_error
from tests.cli.conftest import DEMO
from tests.conftest import ROOT


def denied(path: Path | str) -> PermissionError:
    return PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))


def test_the_longest_path_that_holds_the_file_is_at_fault(in_tmp: Path) -> None:
    (in_tmp / "mine.yaml").write_text("data: {mix: [{name: rows/a}, {name: rows/b}], cache_dir: rows}\n")
    args = ("fit", "--config", "mine.yaml", "--run.root", "runs", "--model.name=~/base")
    expected = {
        "rows/b/x.jsonl": "data.mix.name: 'rows/b' cannot be opened (Permission denied",
        "rows/c": "data.cache_dir: 'rows'",
        "runs/a/b": "run.root: 'runs'",
        os.path.expanduser("~/base/config.json"): "model.name: '~/base'",
    }
    for place, line in expected.items():
        assert str(path_error(denied(place), args)).startswith(line)
    assert path_error(denied("/elsewhere"), args) is None
    assert path_error(OSError(errno.EIO, "no name"), args) is None


COMMANDS = [
    (("fit", "--config", DEMO, "--data.source", "locked/rows.jsonl"), "data.source"),
    (("fit", "--config", DEMO, "--model.name", "locked/base"), "model.name"),
    (("fit", "--config", DEMO, "--ckpt_path", "locked/last.ckpt"), "--ckpt_path"),
    (("generate", "--prompt", "a", "--run", "locked/run"), "--run"),
    (("generate", "--prompt", "a", "--root", "locked/runs"), "--root"),
    (("generate", "--prompts", "locked/prompts.txt"), "--prompts"),
    (("export", "--root", "locked/runs"), "--root"),
    (("preview", "--config", DEMO, "--jsonl", "locked/new.jsonl"), "--jsonl"),
]


@pytest.mark.parametrize(("args", "key"), COMMANDS, ids=lambda value: str(value)[-30:])
def test_a_folder_that_this_user_may_not_open_is_one_line(
    args: tuple[str, ...],
    key: str,
    in_tmp: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Root may open everything, so the answer of the system is a stand-in."""
    asked: dict[str, Callable[..., Any]] = {"stat": os.stat, "open": os.open, "mkdir": os.mkdir, "scandir": os.scandir}

    def refuse(name: str) -> Callable[..., Any]:
        def ask(path: Any, *given: Any, **more: Any) -> Any:
            if "locked/" in str(path):
                raise denied(path)
            return asked[name](path, *given, **more)

        return ask

    for name in asked:
        monkeypatch.setattr(os, name, refuse(name))
    assert cli.main(args) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert line.startswith(f"error: {key}: ")


@pytest.mark.parametrize(
    ("command", "code", "line"),
    [
        ("{python} {cli} --help >&-", 0, ""),
        ("{python} {cli} prevew >&-", 2, "error: command: 'prevew' does not exist. Did you mean preview?"),
        ("{python} {cli} --help >/dev/full", 2, "error: output: cannot be written: the disk is full."),
        ("mkdir x; cd x; rmdir ../x; {python} {cli} preview", 2, "error: current folder: does not exist any more."),
    ],
)
def test_a_closed_or_full_output_and_a_lost_folder_are_one_line(
    command: str, code: int, line: str, in_tmp: Path
) -> None:
    shell = command.format(python=sys.executable, cli=ROOT / "cli.py")
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == code
    assert done.stderr.startswith(line) and len(done.stderr.splitlines()) == bool(line)
