"""The order of the rows of local files: a sample of all of them, or as they stand.

The first rows of a sample are drawn from the whole source: from every row, if all pieces of the files fit into
IN_MEMORY, else from many units at once. A group of units is read in as many passes as needed, and each pass keeps a
share of its pieces, so the memory does not grow with the files. The order depends on the files and the seed only.
"""

import random
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Literal

from datamodules.rows.pieces import Piece, SourceRow, Unit

Order = Literal["sampled", "file"]
IN_MEMORY = 1 << 27  # bytes of pieces that are kept at once
GROUP_BYTES, GROUP_UNITS = 4 * IN_MEMORY, 192  # of the units that are read together
PER_ROW = 300  # bytes in memory beside the content of a row that is kept
AT_ONCE = 1_024  # rows that are converted together, before they are yielded


def in_order(units: Sequence[Unit]) -> Iterator[SourceRow]:
    """Yield all rows as they stand."""
    for unit in units:
        for piece in unit.pieces():
            yield from unit.source_rows(piece, range(piece.length))


def sampled(units: Sequence[Unit], seed: int) -> Iterator[SourceRow]:
    """Yield all rows, each once, in an order by the seed."""
    rng = random.Random(seed)
    order = list(range(len(units)))
    rng.shuffle(order)
    for group in _groups(units, order):
        done, share = 0.0, 1.0  # parts of all pieces of the group; sums of powers of 1/2, so they are exact
        while done < 1:
            kept, share = _keep(units, group, seed, done, share)
            done += share
            yield from _mixed(units, kept, rng)


def _groups(units: Sequence[Unit], order: Sequence[int]) -> Iterator[list[int]]:
    """The units in groups that are read together."""
    group: list[int] = []
    size = 0
    for number in order:
        if group and (size + units[number].size > GROUP_BYTES or len(group) == GROUP_UNITS):
            yield group
            group, size = [], 0
        group.append(number)
        size += units[number].size
    if group:
        yield group


def _keep(
    units: Sequence[Unit], group: Sequence[int], seed: int, done: float, share: float
) -> tuple[list[tuple[int, Piece]], float]:
    """Return the pieces whose random number, fixed by the seed, is from `done` to `done + share`, and the share. It is
    halved until they fit into the memory."""
    kept: list[tuple[float, int, Piece]] = []
    size = 0
    for number in group:
        draw = random.Random(f"{seed} {number}").random
        for piece in units[number].pieces():
            if not done <= (drawn := draw()) < done + share:
                continue
            kept.append((drawn, number, piece))
            size += piece.size + PER_ROW * piece.length
            while size > IN_MEMORY and len(kept) > 1:
                share /= 2
                kept = [one for one in kept if one[0] < done + share]
                size = sum(one[2].size + PER_ROW * one[2].length for one in kept)
    return [(number, piece) for _, number, piece in kept], share


def _mixed(units: Sequence[Unit], kept: Sequence[tuple[int, Piece]], rng: random.Random) -> Iterator[SourceRow]:
    """The rows of the pieces in random order. Those of one piece are converted together."""
    ends = list(accumulate(piece.length for _, piece in kept))
    order = list(range(ends[-1] if ends else 0))
    rng.shuffle(order)
    for some in (order[start : start + AT_ONCE] for start in range(0, len(order), AT_ONCE)):
        wanted: dict[int, list[int]] = {}
        for row in some:
            wanted.setdefault(bisect_right(ends, row), []).append(row)
        found: dict[int, SourceRow] = {}
        for k, rows in wanted.items():
            number, piece = kept[k]
            first = ends[k] - piece.length
            found.update(zip(rows, units[number].source_rows(piece, [row - first for row in rows]), strict=True))
        yield from (found[row] for row in some)
