import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules.rows import files, json_files
from datamodules.rows.json_files import KEY_TWICE
from errors import UserError


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_a_key_that_stands_twice_is_noted_at_its_row(name: str, tmp_path: Path) -> None:
    objects = ['{"a": 1, "a": 2}', '{"a": 3}', '{"a": [{"b": 1, "b": 4}]}']
    (tmp_path / name).write_text("\n".join(objects) if name == "a.jsonl" else f"[{','.join(objects)}]")
    rows = list(files.rows([tmp_path / name]))
    assert [(row, note) for row, _, note in rows] == [
        ({"a": 2}, KEY_TWICE),
        ({"a": 3}, ""),
        ({"a": [{"b": 4}]}, KEY_TWICE),
    ]


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=30), max_size=30), st.integers(1, 60))
@settings(deadline=None)
def test_blocks_of_any_size_give_each_line_once_with_its_number(texts: list[str], block: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_files, "ONE_UNIT", 0)
        patch.setattr(json_files, "BLOCK", block)
        path = Path(folder) / "a.jsonl"
        lines = ["" if text.startswith("a") else json.dumps({"text": text}, ensure_ascii=False) for text in texts]
        path.write_text("\n".join(lines), encoding="utf-8", newline="\n")
        expected = [({"text": text}, str(n)) for n, (text, line) in enumerate(zip(texts, lines, strict=True)) if line]
        assert [(row, str(place)) for row, place, _ in files.rows([path])] == expected
        found = [(row, str(place)) for row, place, _ in files.rows([path], "sampled", 3)]
        assert sorted(found, key=lambda one: int(one[1])) == expected


def test_a_broken_line_of_a_block_is_named_by_its_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_files, "ONE_UNIT", 0)
    monkeypatch.setattr(json_files, "BLOCK", 64)
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n' * 50 + "{oops\n" + '{"a": 1}\n' * 50)
    with pytest.raises(UserError, match=r"a\.jsonl' cannot be read: line 51 is not a JSON object"):
        list(files.rows([tmp_path / "a.jsonl"], "sampled", 0))
