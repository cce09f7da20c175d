"""The environment of a run is written to its folder."""

import json
from pathlib import Path

import pytest

from lightning_modules.run import environment as module
from lightning_modules.run.environment import environment, program_version, write_environment


def test_the_file_holds_versions_command_and_git_state(tmp_path: Path) -> None:
    write_environment(tmp_path, "-second", ["python", "cli.py", "fit"])
    found = json.loads((tmp_path / "environment-second.json").read_text())
    assert found["version"] == program_version()
    assert found["command"] == ["python", "cli.py", "fit"]
    assert all(found["versions"][name] for name in ("torch", "lightning", "transformers", "peft", "datasets"))
    assert set(found["git"]) == {"commit", "changed"}


def test_uncommitted_changes_are_written_as_a_patch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {"rev-parse": "abc\n", "status": " M cli.py\n", "diff": "--- a\n+++ b\n"}
    monkeypatch.setattr(module, "_git", lambda *args: answers[args[0]])
    write_environment(tmp_path, "", [])
    assert json.loads((tmp_path / "environment.json").read_text())["git"] == {"commit": "abc", "changed": ["cli.py"]}
    assert (tmp_path / "uncommitted.patch").read_text() == answers["diff"]


def test_without_git_its_facts_are_null(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "CHECKOUT", tmp_path)  # no repository
    assert environment([])["git"] == {"commit": None, "changed": None}
    monkeypatch.setenv("PATH", "")
    assert environment([])["git"] == {"commit": None, "changed": None}
