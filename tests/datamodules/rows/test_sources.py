import json
import os
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datamodules.rows.sources import HeldOut, Source, open_source
from errors import UserError

ROWS = [{"instruction": f"Ask {i}", "response": f"Answer {i}"} for i in range(30)]


def opened(name: Path | str, seed: int = 0, revision: str | None = None) -> Source:
    return open_source(str(name), revision, "train", 0.1, seed, order="file")


def rows_of(source: Source) -> list[dict[str, Any]]:
    return [row for row, _, _ in source.rows()]


def write_jsonl(path: Path, rows: list[dict[str, str]] = ROWS) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_jsonl_parquet_folders_and_globs_give_the_same_rows(tmp_path: Path) -> None:
    jsonl = write_jsonl(tmp_path / "a.jsonl")
    assert rows_of(opened(jsonl)) == ROWS
    (tmp_path / "parts").mkdir()
    for k in range(2):
        pq.write_table(pa.Table.from_pylist(ROWS[15 * k : 15 * k + 15]), tmp_path / "parts" / f"{k}.parquet")
    assert rows_of(opened(tmp_path / "parts")) == ROWS
    assert rows_of(opened(tmp_path / "parts" / "*.parquet")) == ROWS


def test_a_stream_reads_only_a_part_of_the_file(tmp_path: Path) -> None:
    """The stream is lazy: a reader that stops early never reads the broken end of the file."""
    many = [{"instruction": "x" * 1000, "response": "y"} for _ in range(40_000)]
    path = write_jsonl(tmp_path / "long.jsonl", many)
    with path.open("a") as file:
        file.write("{broken\n")
    assert len(list(islice(opened(path).rows(), 100))) == 100


def test_the_fingerprint_is_stable_and_changes_with_the_file_and_the_seed(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl")
    before = opened(path).fingerprint
    assert opened(path).fingerprint == before
    assert opened(path, seed=1).fingerprint != before
    write_jsonl(path, ROWS[:20])
    assert opened(path).fingerprint != before


def test_the_fingerprint_changes_with_the_bytes_at_equal_size_and_time(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl")
    before, stat = opened(path).fingerprint, path.stat()
    path.write_text(path.read_text().replace("Answer 29", "Answer 92"))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert path.stat().st_size == stat.st_size
    assert opened(path).fingerprint != before


def test_the_side_of_an_instruction_ignores_case_and_white_space() -> None:
    side = HeldOut(0.5, seed=0)
    for i in range(50):
        assert side({}, f"Ask {i}") == side({}, f"  ask\n{i} ")
    sides = [side({}, f"Ask {i}") for i in range(2_000)]
    assert 0.45 < sum(sides) / len(sides) < 0.55
    assert sides != [HeldOut(0.5, seed=1)({}, f"Ask {i}") for i in range(2_000)]


def test_built_in_rows_are_endless_and_seeded() -> None:
    source = opened("builtin", seed=3)
    assert list(islice(source.rows(), 20)) == list(islice(opened("builtin", seed=3).rows(), 20))
    assert "think>" not in next(opened("builtin-plain").rows()).row["response"]


def test_built_in_problems_are_not_compared_for_near_duplicates(tmp_path: Path) -> None:
    assert not opened("builtin").comparable
    assert opened(write_jsonl(tmp_path / "a.jsonl")).comparable


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing.jsonl", "'missing.jsonl' does not exist"),
        ("no/such/folder/x", "does not exist"),
        ("rows.xlsx", "does not have one format of"),
        ("empty.jsonl", "is empty"),
        ("hollow", "contains no .parquet, .jsonl, .json, .csv"),
    ],
)
def test_a_source_that_does_not_exist_is_refused_when_it_is_opened(in_tmp: Path, name: str, message: str) -> None:
    (in_tmp / "rows.xlsx").write_text("a,b\n")
    (in_tmp / "empty.jsonl").touch()
    (in_tmp / "hollow").mkdir()
    with pytest.raises(UserError, match=message) as caught:
        opened(name)
    assert caught.value.key == "data.source"


def test_a_broken_file_is_named_when_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "broken.jsonl"
    path.write_text('{"instruction": "a", "response": "b"}\n{oops\n')
    with pytest.raises(UserError, match=r"broken\.jsonl' cannot be read: line 2 is not"):
        list(opened(path).rows())


def test_a_pinned_hub_data_set_is_requested_only_when_rows_are_read() -> None:
    source = opened("Magpie-Align/Some-Set", revision="d78edb811991faba57a3b7226719f3818460e723")
    with pytest.raises(UserError, match=r"is not in the local cache.*hf download --repo-type dataset.*make demo"):
        next(source.rows())
