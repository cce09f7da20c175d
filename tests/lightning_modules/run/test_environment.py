import json
from pathlib import Path

import pytest

from lightning_modules.run import environment as record
from lightning_modules.run.environment import environment, write_environment


def test_versions_machine_command_and_the_state_of_the_code_are_kept(tmp_path: Path) -> None:
    write_environment(tmp_path, "-second", ["python", "cli.py", "fit"])
    found = json.loads((tmp_path / "environment-second.json").read_text())
    assert found["command"] == ["python", "cli.py", "fit"]
    assert all(found["versions"][name] for name in ("torch", "lightning", "transformers", "peft", "datasets"))
    assert set(found["git"]) == {"commit", "changed"}


def test_what_is_not_committed_is_kept_as_a_patch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {"rev-parse": "abc\n", "status": " M cli.py\n", "diff": "--- a\n+++ b\n"}
    monkeypatch.setattr(record, "_git", lambda *args: answers[args[0]])
    write_environment(tmp_path, "", [])
    assert json.loads((tmp_path / "environment.json").read_text())["git"] == {"commit": "abc", "changed": ["cli.py"]}
    assert (tmp_path / "uncommitted.patch").read_text() == answers["diff"]


def test_without_git_the_rest_is_kept_all_the_same(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(record, "CHECKOUT", tmp_path)  # no repository
    assert environment([])["git"] == {"commit": None, "changed": None}
    monkeypatch.setenv("PATH", "")
    assert environment([])["git"] == {"commit": None, "changed": None}
