"""The bytes and the text of a file, decompressed, and the rows of tables in text: .csv and .tsv."""

import csv
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from datamodules.rows.pieces import Piece, Unit
from errors import UserError

SETTING = "data.source"  # named in the errors
COMPRESSED = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2"}  # of text files; pyarrow decompresses these
LONGEST_ROW = 1 << 25  # bytes of a row of text: 32 million, so that a file of one line does not fill the memory
TOO_LONG = f"is longer than {LONGEST_ROW:,} bytes"
DELIMITERS = {".csv": ",", ".tsv": "\t"}


def is_compressed(path: Path) -> bool:
    return path.suffix in COMPRESSED


def open_bytes(path: Path) -> BinaryIO:
    """The decompressed bytes. Raises UserError for UTF-16."""
    import pyarrow as pa

    if is_compressed(path):
        stream = io.BufferedReader(pa.input_stream(str(path), compression=COMPRESSED[path.suffix]), 1 << 18)
    else:
        stream = path.open("rb", buffering=1 << 18)  # type: ignore[assignment]
    head = stream.peek(4)[:4]
    if head[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in head[:2]:
        stream.close()
        fix = f"convert it: iconv -f UTF-16 -t UTF-8 {path.name} > NEW_FILE"
        raise UserError(SETTING, path, "is UTF-16, and texts are read as UTF-8", fix)
    return cast(BinaryIO, stream)


def open_text(path: Path, newline: str = "\n") -> io.TextIOWrapper:
    """The decompressed text. Bytes that are not UTF-8 become lone surrogates, so that only their row is dropped."""
    return io.TextIOWrapper(open_bytes(path), encoding="utf-8-sig", errors="surrogateescape", newline=newline)


def csv_units(path: Path, label: str) -> list[Unit]:
    """A .csv or .tsv file as one unit: only a pass from its beginning tells which line ends are inside of a text."""
    return [Unit(path.stat().st_size, lambda: _records(path), lambda piece, _: [(piece.content, "")], label=label)]


def _records(path: Path) -> Iterator[Piece]:
    """The rows of a file with the names of the columns in its first line. Every value is a text, an empty one None."""
    suffix = Path(path.stem).suffix if is_compressed(path) else path.suffix
    csv.field_size_limit(LONGEST_ROW)
    with open_text(path, newline="") as text:
        reader = csv.reader(text, delimiter=DELIMITERS[suffix], strict=True)
        try:
            names = next(reader, [])
            if len(names) == 1 and (other := next((one for one in ";\t|" if one in names[0]), None)):
                problem = f"has {other!r} between its columns, in place of {DELIMITERS[suffix]!r}"
                raise UserError(SETTING, path, problem, "save it with commas, or with tabs as a .tsv file")
            if (twice := next((name for name in names if names.count(name) > 1), None)) is not None:
                raise UserError(SETTING, path, f"has the column {twice!r} twice", "give each column a name of its own")
            for at, values in enumerate(record for record in reader if record):
                if len(values) != len(names):
                    problem = (
                        f"cannot be read: line {reader.line_num} has {len(values)} values for {len(names)} columns"
                    )
                    raise UserError(SETTING, path, problem, "put texts with commas or line ends between double quotes")
                row = {name: value or None for name, value in zip(names, values, strict=True)}
                yield Piece(at, row, sum(map(sys.getsizeof, values)))
        except csv.Error as error:
            problem = f"cannot be read: line {reader.line_num} is not a line of a table ({error})"
            raise UserError(SETTING, path, problem, "save the table again, with quoted texts") from error
