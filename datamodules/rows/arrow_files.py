"""Rows of parquet and arrow files.

A file that is damaged raises ArrowException, OSError, ValueError, OverflowError or MemoryError, and never ends the
process: arrow files have no checksums, so their offsets are checked before they are used.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

READ_ROWS = 256  # rows of a parquet file read at once; a row is about 10 KB on disk and 30 KB as Python objects
END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"  # https://arrow.apache.org/docs/format/Columnar.html#ipc-streaming-format


def parquet_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of a parquet file."""
    import pyarrow.parquet as pq

    # A small buffer instead of a whole column of a row group: 124 MB instead of 234 for 25,000 real rows.
    with pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 16, page_checksum_verification=True) as file:
        for batch in file.iter_batches(READ_ROWS):
            yield from _batch_rows(batch)


def arrow_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of both Arrow formats: the file, which begins with the format's name, and the stream of `datasets`."""
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
            for start in range(0, batch.num_rows, READ_ROWS):
                yield from _batch_rows(batch.slice(start, READ_ROWS))


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
