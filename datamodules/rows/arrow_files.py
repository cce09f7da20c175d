"""Rows of parquet and arrow files.

A file that is damaged raises ArrowException, OSError, ValueError, OverflowError or MemoryError, and never ends the
process: arrow files have no checksums, so their offsets are checked before they are used.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

from datamodules.rows.pieces import Piece, Row, Unit

READ_ROWS = 32  # rows of a parquet file read at once; a row is about 10 KB on disk and 30 KB as Python objects
END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"  # https://arrow.apache.org/docs/format/Columnar.html#ipc-streaming-format


def parquet_units(path: Path, label: str) -> list[Unit]:
    """The row groups of a parquet file."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        metadata = file.metadata
    groups = [metadata.row_group(k) for k in range(metadata.num_row_groups)]
    firsts = accumulate((group.num_rows for group in groups), initial=0)
    return [
        Unit(group.total_byte_size, partial(_row_group, path, metadata, k), _rows, partial(int, first), label)
        for k, (group, first) in enumerate(zip(groups, firsts, strict=False))
    ]


def _row_group(path: Path, metadata: Any, group: int) -> Iterator[Piece]:
    import pyarrow.parquet as pq

    # A small buffer instead of a whole column of a row group: 124 MB instead of 234 for 25,000 real rows.
    given = {"pre_buffer": False, "buffer_size": 1 << 16, "page_checksum_verification": True}
    with pq.ParquetFile(path, metadata=metadata, **given) as file:
        yield from _pieces(file.iter_batches(READ_ROWS, row_groups=[group]))


def arrow_units(path: Path, label: str) -> list[Unit]:
    """A file of one of the Arrow formats as one unit."""
    return [Unit(path.stat().st_size, lambda: _pieces(_arrow_batches(path)), _rows, label=label)]


def _arrow_batches(path: Path) -> Iterator[Any]:
    """The checked batches of both Arrow formats: the file, which begins with the format's name, and the stream of
    `datasets`."""
    import pyarrow as pa

    with pa.OSFile(str(path)) as source:
        if source.read(6) == b"ARROW1":
            file = pa.ipc.open_file(source)
            batches = map(file.get_batch, range(file.num_record_batches))
        else:
            # Only this mark shows that a stream was not cut between two batches.
            source.seek(max(0, source.size() - len(END_OF_STREAM)))
            if source.read() != END_OF_STREAM:
                raise ValueError("the end-of-stream mark is missing")
            source.seek(0)
            batches = iter(pa.ipc.open_stream(source))
        for batch in batches:
            _validate(batch)
            yield batch


def _pieces(batches: Iterator[Any]) -> Iterator[Piece]:
    """Each pyarrow.RecordBatch as a piece."""
    at = 0
    for batch in batches:
        yield Piece(at, batch, batch.nbytes, batch.num_rows)
        at += batch.num_rows


def _rows(piece: Piece, wanted: Sequence[int]) -> Iterator[tuple[Row, str]]:
    """Some rows of a piece. The batch of an arrow file may be large, so it is converted in parts."""
    import pyarrow as pa

    for start in range(0, len(wanted), READ_ROWS):
        some = wanted[start : start + READ_ROWS]
        if isinstance(some, range):
            part = piece.content.slice(some.start, len(some))
        else:
            part = piece.content.take(pa.array(some))
        for row in _batch_rows(part):
            yield row, ""


def _validate(batch: Any) -> None:
    """Raise ArrowInvalid for a pyarrow.RecordBatch with a damaged offset: its use would read outside the memory."""
    import pyarrow as pa

    for column in batch.columns:
        try:
            column.validate(full=True)
        except pa.ArrowInvalid:  # a text that is not UTF-8 is no damage: its row is dropped later
            column.view(_plain(column.type)).validate(full=True)


def _batch_rows(batch: Any) -> list[dict[str, Any]]:
    """The rows of a pyarrow.RecordBatch."""
    try:
        return list(batch.to_pylist())
    except (ValueError, OverflowError, KeyError):  # a value of one column: bytes that are no UTF-8, the year 300,000
        columns = {name: _values(batch.column(k)) for k, name in enumerate(batch.schema.names)}
        return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _values(column: Any) -> list[Any]:
    """The values of a pyarrow.Array. If Python cannot hold one, its dates and times are numbers, and in its texts bytes
    that are not UTF-8 become lone surrogates, as in JSON files."""
    try:
        return list(column.to_pylist())
    except (ValueError, OverflowError, KeyError):
        return [_as_text(value) for value in column.view(_plain(column.type)).to_pylist()]


def _plain(data_type: Any) -> Any:
    """The pyarrow.DataType with binary in place of string types, and numbers in place of dates and times."""
    import pyarrow as pa

    if pa.types.is_string(data_type) or pa.types.is_large_string(data_type):
        return pa.large_binary() if pa.types.is_large_string(data_type) else pa.binary()
    if pa.types.is_temporal(data_type) and not pa.types.is_interval(data_type):
        return pa.int32() if data_type.bit_width == 32 else pa.int64()
    if pa.types.is_list(data_type):
        return pa.list_(_plain(data_type.value_type))
    if pa.types.is_struct(data_type):
        return pa.struct([(field.name, _plain(field.type)) for field in data_type])
    return data_type


def _as_text(value: Any) -> Any:
    """The value with strings in place of bytes."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    if isinstance(value, list):
        return [_as_text(item) for item in value]
    return {key: _as_text(item) for key, item in value.items()} if isinstance(value, dict) else value
