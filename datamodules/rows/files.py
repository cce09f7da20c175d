"""Local files as one stream of rows: parquet, JSON lines or arrays, tables in text, arrow.

A stream is lazy: some rows are in memory, never a whole large file. A file that cannot be read raises UserError, which
names the file and, for texts, the line.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from datamodules.rows.arrow_files import arrow_units, parquet_units
from datamodules.rows.folders import format_of, unreadable
from datamodules.rows.json_files import json_units
from datamodules.rows.pieces import Piece, Row, SourceRow, Unit
from datamodules.rows.sampling import Order, in_order, sampled
from datamodules.rows.text_files import csv_units
from disk import digests


def fingerprint(paths: Sequence[Path]) -> str:
    """Return a hash of each file's name and content. Raises UserError for a file that cannot be opened."""
    try:
        known = [(_label(path, paths) or path.name, one) for path, one in zip(paths, digests(paths), strict=True)]
    except OSError as error:
        raise unreadable(Path(error.filename or paths[0]), error) from error
    return hashlib.blake2b(repr(known).encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()


def rows(paths: Sequence[Path], order: Order = "file", seed: int = 0) -> Iterator[SourceRow]:
    """Yield the rows of these files. Raises UserError for a file that cannot be read.

    A row is named by its position in its file from 0, after the name of the file if there are several.
    """
    if order == "file":  # each file is opened when it is read
        for path in paths:
            yield from in_order(_units(path, _label(path, paths)))
        return
    yield from sampled([unit for path in paths for unit in _units(path, _label(path, paths))], seed)


def _label(path: Path, paths: Sequence[Path]) -> str:
    """The name of a file below the folder that holds all files."""
    if len(paths) == 1:
        return ""
    folder = os.path.commonpath([str(one.parent) for one in paths])
    return f"{os.path.relpath(path, folder)}:"


def _units(path: Path, label: str) -> list[Unit]:
    with _readable(path):
        return [_guarded(unit, path) for unit in UNITS[format_of(path) or ""](path, label)]


def _guarded(unit: Unit, path: Path) -> Unit:
    """The unit with UserError in place of the errors of its libraries."""

    def pieces() -> Iterator[Piece]:
        with _readable(path):
            yield from unit.pieces()

    def rows_of(piece: Piece, wanted: Sequence[int]) -> Iterator[tuple[Row, str]]:
        with _readable(path):
            yield from unit.rows(piece, wanted)

    return replace(unit, pieces=pieces, rows=rows_of)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Raise UserError for an error of the library that reads the file."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError) as error:
        raise unreadable(path, error) from error


UNITS: dict[str, Callable[[Path, str], list[Unit]]] = {
    "parquet": parquet_units, "json": json_units, "csv": csv_units, "arrow": arrow_units,
}  # fmt: skip
