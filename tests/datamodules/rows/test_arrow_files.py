"""Parquet and arrow files: values that Python cannot hold, and damage that must not end the process."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datamodules.rows import files
from tests.conftest import ROOT

FAR = 10**18  # microseconds after 1970: the year 33,658
# Reads a file again and again, each time with other damage: one bit, or a few bytes. Prints what came of it.
DAMAGE = """
import random, sys
from collections import Counter
from pathlib import Path
from datamodules.rows import files
from errors import UserError

path, copy = Path(sys.argv[1]), Path(sys.argv[1]).with_name("damaged" + Path(sys.argv[1]).suffix)
content, draw, seen = path.read_bytes(), random.Random(0), Counter()
for turn in range(int(sys.argv[2])):
    damaged, at = bytearray(content), draw.randrange(len(content))
    if turn % 3:
        damaged[at] ^= 1 << draw.randrange(8)
    else:
        damaged[at : at + 8] = draw.choice([bytes(8), b"\\xff" * 8, draw.randbytes(8)])
    copy.write_bytes(damaged[: len(content)])
    try:
        seen["read"] += len(list(files.rows([copy]))) > 0
    except UserError as error:
        assert str(copy) in str(error) and chr(10) not in str(error), error
        seen["refused"] += 1
print(seen["read"], seen["refused"])
"""


def read(path: Path) -> list[dict[str, Any]]:
    return [row for row, _, _ in files.rows([path])]


def table() -> Any:
    rows = range(40)
    turns = [[{"role": "user", "content": f"Ask {k}"}, {"role": "assistant", "content": "x"}] for k in rows]
    return pa.table(
        {
            "instruction": [f"Ask {k} é" for k in rows],
            "response": pa.array([f"<think>{k}</think>b" * 5 for k in rows], pa.large_string()),
            "messages": turns,
            "level": pa.array([None if k % 3 else k for k in rows]),
            "kind": pa.array(["a", "b"] * 20).dictionary_encode(),
            "when": pa.array(rows, pa.timestamp("us", tz="UTC")),
            "pair": pa.array([[1.0, 2.0]] * 40, pa.list_(pa.float32(), 2)),
            "map": pa.array([[("k", 1)]] * 40, pa.map_(pa.string(), pa.int32())),
            "none": pa.nulls(40),
        }
    )


def write(path: Path, new: Callable[..., Any], compression: str | None = None) -> None:
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with new(str(path), table().schema, options=options) as writer:
        writer.write_table(table(), max_chunksize=20)


@pytest.mark.parametrize("compression", [None, "zstd"])
@pytest.mark.parametrize("new", [pa.ipc.new_stream, pa.ipc.new_file])
def test_no_damage_of_an_arrow_file_ends_the_process(
    new: Callable[..., Any], compression: str | None, tmp_path: Path
) -> None:
    write(tmp_path / "a.arrow", new, compression)
    assert read(tmp_path / "a.arrow") == table().to_pylist()
    run_damaged(tmp_path / "a.arrow")


def test_no_damage_of_a_parquet_file_ends_the_process(tmp_path: Path) -> None:
    pq.write_table(table(), tmp_path / "a.parquet", row_group_size=20)
    run_damaged(tmp_path / "a.parquet")


def run_damaged(path: Path) -> None:
    command = [sys.executable, "-c", DAMAGE, str(path), "250"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-500:]
    read, refused = map(int, ended.stdout.split())
    assert read and refused


def test_dates_that_python_cannot_hold_stop_nobody_who_does_not_use_them(tmp_path: Path) -> None:
    times = {
        "micro": pa.array([0, FAR], pa.timestamp("us")),
        "zone": pa.array([0, 1], pa.timestamp("us", tz="Mars/Olympus")),
        "day": pa.array([0, 2**31 - 1], pa.date32()),
        "milli": pa.array([0, FAR], pa.date64()),
        "span": pa.array([0, 2**62], pa.duration("s")),
        "inner": pa.array([[{"at": 0}], [{"at": FAR}]], pa.list_(pa.struct([("at", pa.timestamp("us"))]))),
    }
    columns = {"instruction": ["a", "b"], **times, "response": ["c", "d"]}
    pq.write_table(pa.table({key: columns[key] for key in columns if key != "zone"}), tmp_path / "a.parquet")
    with pa.ipc.new_stream(str(tmp_path / "a.arrow"), pa.table(columns).schema) as writer:
        writer.write_table(pa.table(columns))
    for rows in (read(tmp_path / "a.parquet"), read(tmp_path / "a.arrow")):
        assert [(row["instruction"], row["response"]) for row in rows] == [("a", "c"), ("b", "d")]
        assert rows[1]["micro"] == FAR
        assert rows[1]["inner"] == [{"at": FAR}]


def test_a_text_that_is_not_utf8_beside_a_far_date_costs_only_its_own_row(tmp_path: Path) -> None:
    texts = pa.array([b"a", b"\xff"]).view(pa.string())
    both = pa.table({"instruction": texts, "when": pa.array([0, FAR], pa.timestamp("us"))})
    with pa.ipc.new_stream(str(tmp_path / "a.arrow"), both.schema) as writer:
        writer.write_table(both)
    assert [row["instruction"] for row in read(tmp_path / "a.arrow")] == ["a", "\udcff"]
