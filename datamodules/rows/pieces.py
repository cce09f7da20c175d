"""Files as units, and units as pieces: the smallest parts that are read at once and kept in memory as they are.

A unit is read without the other units: a whole file, a block of a large JSON-lines file, a row group of parquet. Its
pieces are cheap to read and to keep: a line, a batch of a table. Only a piece that is used becomes rows.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

Row = dict[str, Any]


class SourceRow(NamedTuple):
    """A row with the name of its place in the source, for a row without an id, and what was odd about it."""

    row: Row
    place: "str | Place"  # str() of it is the name
    note: str = ""  # counted if the row is kept


class Piece(NamedTuple):
    """One row or a few neighbouring rows of a unit, unparsed."""

    at: int  # of its first row in the unit, from 0
    content: Any
    size: int  # bytes in memory
    length: int = 1  # rows


@dataclass(frozen=True)
class Unit:
    """A part of a file. `pieces` and `rows` raise UserError if the file cannot be read."""

    size: int  # bytes, estimated
    pieces: Callable[[], Iterator[Piece]]
    rows: Callable[[Piece, Sequence[int]], Iterable[tuple[Row, str]]]  # some rows of a piece, each with its note
    first: Callable[[], int] = lambda: 0  # position of its first row in the file
    label: str = ""  # before the position in the name of a row: which file it is, if there are several

    def source_rows(self, piece: Piece, wanted: Sequence[int]) -> Iterator[SourceRow]:
        """The rows of a piece with these numbers."""
        for k, (row, note) in zip(wanted, self.rows(piece, wanted), strict=True):
            yield SourceRow(row, Place(self, piece.at + k), note)


class Place(NamedTuple):
    """The place of a row. Its position in the file is computed when it is needed, which may be a pass over the file."""

    unit: Unit
    at: int

    def __str__(self) -> str:
        return f"{self.unit.label}{self.unit.first() + self.at}"


def numbered(rows: Iterable[Row]) -> Iterator[SourceRow]:
    """Yield rows without a place, named by their number from 0."""
    for number, row in enumerate(rows):
        yield SourceRow(row, str(number))
