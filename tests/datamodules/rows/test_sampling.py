import gzip
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules.rows import arrow_files, files, json_files, sampling, text_files
from datamodules.rows.pieces import Piece, SourceRow, Unit
from datamodules.rows.sampling import in_order, sampled

ROWS = [{"n": i, "level": i // 600, "text": "é" * (i % 50)} for i in range(3_000)]  # sorted by level


def lines(rows: list[dict[str, Any]] = ROWS) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def stream(path: Path) -> None:
    table = pa.Table.from_pylist(ROWS)
    with pa.ipc.new_stream(str(path), table.schema) as writer:
        writer.write_table(table, max_chunksize=700)


WRITERS: dict[str, Callable[[Path], object]] = {
    "a.jsonl": lambda path: path.write_bytes(lines()),
    "a.jsonl.gz": lambda path: path.write_bytes(gzip.compress(lines())),
    "a.json": lambda path: path.write_text(json.dumps(ROWS)),
    "a.parquet": lambda path: pq.write_table(pa.Table.from_pylist(ROWS), path),
    "groups.parquet": lambda path: pq.write_table(pa.Table.from_pylist(ROWS), path, row_group_size=500),
    "a.arrow": stream,
    "a.csv": lambda path: path.write_text("n,level,text\n" + "".join(f"{i},{i // 600},x\n" for i in range(3_000))),
}


def read(path: Path, seed: int = 0) -> list[SourceRow]:
    return list(files.rows([path], "sampled", seed))


@pytest.mark.parametrize("small", [False, True])
@pytest.mark.parametrize("name", WRITERS)
def test_the_first_rows_of_a_sample_are_from_the_whole_file(
    name: str, small: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if the file does not fit into the memory, and a file of lines has many blocks."""
    if small:
        monkeypatch.setattr(sampling, "IN_MEMORY", 600_000)
        monkeypatch.setattr(sampling, "GROUP_BYTES", 10**7)
        monkeypatch.setattr(json_files, "ONE_UNIT", 10_000)
        monkeypatch.setattr(json_files, "BLOCK", 1_000)
        monkeypatch.setattr(arrow_files, "READ_ROWS", 4)
    WRITERS[name](tmp_path / name)
    found = read(tmp_path / name)
    assert sorted(int(row["n"]) for row, _, _ in found) == list(range(3_000)), "each row comes once"
    levels = Counter(int(row["level"]) for row, _, _ in found[:500])
    few = small and name == "a.arrow"  # its batches are large, and each one is kept or not
    assert few or all(levels[level] >= 50 for level in range(5)), levels
    assert {str(place) for _, place, _ in found} == {str(n) for n in range(3_000)}
    assert all(str(place) == str(row["n"]) for row, place, _ in found), "a row is named by its position in the file"
    again, other = read(tmp_path / name), read(tmp_path / name, seed=1)
    assert [row for row, _, _ in again] == [row for row, _, _ in found]
    assert [row for row, _, _ in other] != [row for row, _, _ in found]


def test_the_rows_of_several_files_are_mixed_and_named_by_their_file(tmp_path: Path) -> None:
    paths = [tmp_path / "a" / "x.jsonl", tmp_path / "b" / "x.jsonl"]
    for k, path in enumerate(paths):
        path.parent.mkdir()
        path.write_bytes(lines(ROWS[1_500 * k : 1_500 * k + 1_500]))
    found = list(files.rows(paths, "sampled", 0))
    assert 400 < sum(row["n"] < 1_500 for row, _, _ in found[:1_000]) < 600
    assert {str(place): row["n"] for row, place, _ in found} == {
        f"{'ab'[n // 1_500]}/x.jsonl:{n % 1_500}": n for n in range(3_000)
    }
    assert [row["n"] for row, _, _ in files.rows(paths)] == list(range(3_000))


def test_a_sample_of_a_large_file_of_lines_does_not_read_the_whole_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_files, "ONE_UNIT", 10_000)
    monkeypatch.setattr(json_files, "BLOCK", 1_000)
    monkeypatch.setattr(sampling, "GROUP_UNITS", 10)
    opened: list[Path] = []

    def opening(path: Path) -> BinaryIO:
        opened.append(path)
        return text_files.open_bytes(path)

    monkeypatch.setattr(json_files, "open_bytes", opening)
    WRITERS["a.jsonl"](tmp_path / "a.jsonl")
    assert len(list(islice(files.rows([tmp_path / "a.jsonl"], "sampled", 0), 100))) == 100
    assert len(opened) <= 20 < (tmp_path / "a.jsonl").stat().st_size / 1_000


def numbers(count: int, size: int) -> Unit:
    pieces = [Piece(k, {"n": k}, size) for k in range(count)]
    return Unit(count * size, lambda: iter(pieces), lambda piece, _: [(piece.content, "")])


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 90)), max_size=8), st.integers(1, 400), st.integers(0, 9))
@settings(max_examples=150, deadline=None)
def test_each_row_of_each_unit_comes_once_for_any_memory(shapes: list[tuple[int, int]], memory: int, seed: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampling, "IN_MEMORY", memory)
        patch.setattr(sampling, "PER_ROW", 0)
        patch.setattr(sampling, "GROUP_BYTES", 2 * memory)
        units = [numbers(*shape) for shape in shapes]
        found = [(id(place.unit), row["n"]) for row, place, _ in sampled(units, seed) if not isinstance(place, str)]
        assert sorted(found) == sorted(
            (id(unit), n) for unit, (count, _) in zip(units, shapes, strict=True) for n in range(count)
        )
        assert len(list(in_order(units))) == len(found)


def test_no_more_pieces_are_kept_than_the_memory_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "IN_MEMORY", 1_000)
    monkeypatch.setattr(sampling, "PER_ROW", 0)
    kept: list[int] = []
    mixed = sampling._mixed

    def counted(units: Sequence[Unit], pieces: Sequence[tuple[int, Piece]], rng: Random) -> Iterator[SourceRow]:
        kept.append(len(pieces))
        return mixed(units, pieces, rng)

    monkeypatch.setattr(sampling, "_mixed", counted)
    assert len(list(sampled([numbers(1_000, 10)], 0))) == 1_000
    assert max(kept) <= 100 and len(kept) < 33
