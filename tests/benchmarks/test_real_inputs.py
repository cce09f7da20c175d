from pathlib import Path

import pytest

from benchmarks.real_inputs import row_files, tokenizer_folder


def test_real_inputs_come_from_two_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("b.jsonl", "a.jsonl", "notes.txt"):
        (tmp_path / name).touch()
    monkeypatch.setenv("THINKWRIGHT_REAL_ROWS", str(tmp_path))
    monkeypatch.setenv("THINKWRIGHT_REAL_TOKENIZER", str(tmp_path))
    assert row_files() == [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    assert tokenizer_folder() == tmp_path


def test_without_the_variables_there_are_no_real_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("THINKWRIGHT_REAL_ROWS", raising=False)
    monkeypatch.delenv("THINKWRIGHT_REAL_TOKENIZER", raising=False)
    assert (row_files(), tokenizer_folder()) == ([], None)
