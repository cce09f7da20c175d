"""The file of prepared rows: every row comes back as it was written, and the digest follows ids, roles and order."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from datamodules.prepare import token_dataset as module
from datamodules.prepare.token_dataset import TokenDataset, TokenDatasetWriter
from datamodules.tokens.process import ProcessedExample


def examples(count: int) -> list[ProcessedExample]:
    rng = np.random.default_rng(0)
    made = []
    for k in range(count):
        length = int(rng.integers(1, 9))
        ids, roles = rng.integers(0, 999, length, np.int32), rng.integers(0, 6, length).astype(np.int8)
        supervised = int((roles != 0).sum())
        made.append(
            ProcessedExample(f"row-{k}", "ab"[k % 2], ids=ids, roles=roles, length=length, supervised=supervised)
        )
    return made


def written(path: Path, rows: list[ProcessedExample]) -> str:
    writer = TokenDatasetWriter(path)
    for row in rows:
        writer.add(row)
    return writer.close()


@pytest.mark.parametrize("count", [0, 1, 4, 5, 8, 13])
def test_every_row_comes_back_as_it_was_written(count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RECORD_ROWS", 4)
    rows = examples(count)
    written(tmp_path / "rows.arrow", rows)
    dataset = TokenDataset(tmp_path / "rows.arrow")
    assert len(dataset) == count
    assert dataset.lengths.tolist() == [len(row.ids) for row in rows]
    assert dataset.supervised.tolist() == [row.supervised for row in rows]
    assert dataset.lengths.dtype == dataset.supervised.dtype == np.int64
    for index, row in enumerate(rows):
        found = dataset[index]
        assert (found.index, found.row_id, found.group) == (index, row.row_id, row.group)
        assert (found.ids.tolist(), found.roles.tolist()) == (row.ids.tolist(), row.roles.tolist())
        assert found.ids.dtype == np.int32 and found.roles.dtype == np.int8


def test_rows_are_views_into_the_mapped_file(tmp_path: Path) -> None:
    written(tmp_path / "rows.arrow", examples(3))
    ids = TokenDataset(tmp_path / "rows.arrow")[1].ids
    assert not ids.flags.owndata and not ids.flags.writeable


def test_the_digest_follows_ids_roles_order_and_lengths_only(tmp_path: Path) -> None:
    rows = examples(6)
    digest = written(tmp_path / "a", rows)
    renamed = [ProcessedExample("other", ids=row.ids, roles=row.roles) for row in rows]
    assert written(tmp_path / "b", renamed) == digest
    ids, roles = rows[0].ids.copy(), rows[0].roles.copy()
    ids[0] += 1
    roles[0] = (roles[0] + 1) % 6
    joined = ProcessedExample(
        "x", ids=np.concatenate([rows[0].ids, rows[1].ids]), roles=np.concatenate([rows[0].roles, rows[1].roles])
    )
    others = [
        [ProcessedExample("x", ids=ids, roles=rows[0].roles), *rows[1:]],
        [ProcessedExample("x", ids=rows[0].ids, roles=roles), *rows[1:]],
        [rows[1], rows[0], *rows[2:]],
        [joined, *rows[2:]],
        rows[:-1],
    ]
    assert len({digest, *(written(tmp_path / f"c{k}", other) for k, other in enumerate(others))}) == 6


@pytest.mark.slow
def test_reading_does_not_import_pandas(tmp_path: Path) -> None:
    """It takes a third of a second, before the first optimizer step."""
    written(tmp_path / "rows.arrow", examples(3))
    code = f"from pathlib import Path; from {module.__name__} import TokenDataset\n"
    code += f"print(len(TokenDataset(Path({str(tmp_path / 'rows.arrow')!r}))[2].ids)); import sys\n"
    code += "assert 'pandas' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
