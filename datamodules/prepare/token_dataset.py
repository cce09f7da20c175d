"""Prepared rows on disk: token ids and roles in an Arrow file, written in batches and read back memory-mapped."""

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

CHUNK = 512  # rows in a record batch


class TokenExample(NamedTuple):
    """One row; the arrays are views into the file."""

    index: int  # in its split
    row_id: str
    group: str
    ids: np.ndarray  # (T,) int32
    roles: np.ndarray  # (T,) int8


class TokenDataset:
    """The rows of one split. `lengths` and `supervised` are (N,) int64, in tokens."""

    def __init__(self, path: Path) -> None:
        import pyarrow as pa

        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        self._batches = [reader.get_batch(k) for k in range(reader.num_record_batches)]

        def column(name: str) -> np.ndarray:
            parts = [batch[name].to_numpy() for batch in self._batches]
            return np.concatenate([np.zeros(0, np.int64), *parts])

        self.lengths, self.supervised = column("length"), column("supervised")

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> TokenExample:
        batch, at = self._batches[index // CHUNK], index % CHUNK
        ids, roles = (batch[name][at].values.to_numpy() for name in ("ids", "roles"))
        return TokenExample(index, batch["row_id"][at].as_py(), batch["group"][at].as_py(), ids, roles)


class TokenDatasetWriter:
    """Writes what TokenDataset reads; holds CHUNK rows at most."""

    def __init__(self, path: Path) -> None:
        import pyarrow as pa

        columns = {"row_id": pa.string(), "group": pa.string(), "length": pa.int64(), "supervised": pa.int64()}
        self._schema = pa.schema(columns | {"ids": pa.list_(pa.int32()), "roles": pa.list_(pa.int8())})
        self._file = pa.ipc.new_file(str(path), self._schema)
        self._rows: list[tuple[Any, ...]] = []
        self._digest = hashlib.sha256()

    def add(self, row_id: str, group: str, supervised: int, ids: np.ndarray, roles: np.ndarray) -> None:
        """One row: ids (T,) int32 and roles (T,) int8, of which `supervised` are learned."""
        self._rows.append((row_id, group, len(ids), supervised, ids, roles))
        for part in (len(ids).to_bytes(8, "little"), ids.data, roles.data):
            self._digest.update(part)
        if len(self._rows) == CHUNK:
            self._flush()

    def close(self) -> str:
        """Ends the file; gives a digest of its rows' ids and roles, in their order."""
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
