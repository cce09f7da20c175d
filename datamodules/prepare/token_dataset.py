"""Prepared rows on disk: token ids and roles in an Arrow file, written in record batches and read memory-mapped."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.tokens.process import ProcessedExample

RECORD_ROWS = 512  # rows in a record batch


@dataclass(frozen=True)
class TokenExample:
    """One prepared row. The arrays are views into the file."""

    index: int  # in its split
    row_id: str
    group: str
    ids: np.ndarray  # (T,) int32
    roles: np.ndarray  # (T,) int8


class TokenDataset:
    """The prepared rows of one split. `lengths` and `supervised` are (N,) int64, in tokens."""

    def __init__(self, path: Path) -> None:
        import pyarrow as pa

        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        self._batches = [reader.get_batch(k) for k in range(reader.num_record_batches)]

        def column(name: str) -> np.ndarray:
            # Not to_numpy(), which imports pandas
            parts = [np.from_dlpack(batch[name]) for batch in self._batches]
            return np.concatenate([np.zeros(0, np.int64), *parts])

        self.lengths, self.supervised = column("length"), column("supervised")

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> TokenExample:
        batch, at = self._batches[index // RECORD_ROWS], index % RECORD_ROWS
        ids, roles = (np.from_dlpack(batch[name][at].values) for name in ("ids", "roles"))
        return TokenExample(index, batch["row_id"][at].as_py(), batch["group"][at].as_py(), ids, roles)


class TokenDatasetWriter:
    """Writes the file of a TokenDataset. At most RECORD_ROWS rows are in memory."""

    def __init__(self, path: Path) -> None:
        import pyarrow as pa

        columns = {"row_id": pa.string(), "group": pa.string(), "length": pa.int64(), "supervised": pa.int64()}
        self._schema = pa.schema(columns | {"ids": pa.list_(pa.int32()), "roles": pa.list_(pa.int8())})
        self._file = pa.ipc.new_file(str(path), self._schema)
        self._rows: list[tuple[Any, ...]] = []
        self._digest = hashlib.sha256()

    def add(self, example: ProcessedExample) -> None:
        """Write one row."""
        ids, roles = example.ids, example.roles
        self._rows.append((example.row_id, example.group, len(ids), example.supervised, ids, roles))
        for part in (len(ids).to_bytes(8, "little"), ids.data, roles.data):
            self._digest.update(part)
        if len(self._rows) == RECORD_ROWS:
            self._flush()

    def close(self) -> str:
        """Complete the file. Return a digest of the ids and roles of its rows, in order."""
        self._flush()
        self._file.close()
        return self._digest.hexdigest()[:16]

    def _flush(self) -> None:
        import pyarrow as pa

        if not self._rows:
            return
        row_ids, groups, lengths, supervised, ids, roles = zip(*self._rows, strict=True)
        offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
        flat = [pa.ListArray.from_arrays(offsets, pa.array(np.concatenate(column))) for column in (ids, roles)]
        self._file.write_batch(
            pa.record_batch([pa.array(row_ids), pa.array(groups), lengths, supervised, *flat], schema=self._schema)
        )
        self._rows = []
