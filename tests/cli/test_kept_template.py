"""A run keeps the text of its template: what happens to the file later changes no command."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from cli import main

TEXT = "Task: {{ instruction }}\nAnswer: "


def test_a_template_file_that_is_edited_or_deleted_changes_no_later_command(
    in_tmp: Path, fit: Callable[..., int], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = in_tmp / "mine.jinja"
    file.write_text(TEXT)
    short = ("--data.template", "mine.jinja", "--model.evaluation.rows", "0", "--trainer.max_steps")
    assert fit(*short, "1") == 0
    (run,) = (in_tmp / "runs" / "demo").iterdir()
    assert yaml.safe_load((run / "config.yaml").read_text())["data"]["template"] == TEXT
    first = shutil.copy(run / "checkpoints" / "last.ckpt", run / "checkpoints" / "first.ckpt")
    ask = ["generate", "--prompt", "2+2", "--max_new_tokens", "8", "--ckpt_path", str(first)]
    capsys.readouterr()
    assert main(ask) == 0
    answer = capsys.readouterr().out

    file.write_text("Changed: {{ instruction }}")
    assert fit(*short, "2", "--ckpt_path", "last") == 0
    assert "mine.jinja has changed since the run began" in capsys.readouterr().err
    (newer,) = run.glob("config-*.yaml")
    assert yaml.safe_load(newer.read_text())["data"]["template"] == TEXT

    file.unlink()
    (in_tmp / "elsewhere").mkdir()
    monkeypatch.chdir(in_tmp / "elsewhere")
    assert main(["validate", "--ckpt_path", str(first), "--trainer.limit_val_batches", "1"]) == 0
    assert main(["export", "--ckpt_path", str(first), "--to", "out"]) == 0
    assert "Task: " in Path("out", "chat_template.jinja").read_text()
    capsys.readouterr()
    assert main(ask) == 0
    assert capsys.readouterr().out == answer
