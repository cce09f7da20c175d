"""The figures of a run by step, from metrics.csv: also of a file that is still being written, or was damaged."""

import csv
import io
import math
from collections.abc import Iterator
from typing import NamedTuple

LAST_STEP = 2**53  # above it a float does not tell steps apart
LARGEST = 1e30  # a larger figure is none: an axis that holds it shows nothing else
MOST = 600  # points of a curve on the page; a figure is 600 pixels wide


class Curve(NamedTuple):
    """A figure by step. The steps rise, and the values are finite."""

    steps: list[int]
    values: list[float]


def read_curves(text: str) -> tuple[dict[str, Curve], list[str]]:
    """Return the curves in the text of a metrics.csv by name, and a sentence for each kind of fault in it.

    A last line without its end is still being written, or was cut by a kill: it is left out without a word. If a step
    stands twice, because the run was resumed from an earlier one, the later line counts.
    """
    whole = text[: text.rfind("\n") + 1]
    lines = csv.reader(io.StringIO(whole, newline=""))
    names = _next(lines)
    if not names or "step" not in names:
        return {}, ["metrics.csv is damaged: it has no column of steps"] if whole else ["metrics.csv is empty"]
    found: dict[str, dict[int, float]] = {name: {} for name in names if name != "step"}
    place, damaged, odd = names.index("step"), 0, 0
    while (fields := _next(lines)) is not None:
        if not fields or len(fields) != len(names) or (step := _step(fields[place])) is None:
            damaged += 1
            continue
        for name, field in zip(names, fields, strict=True):
            if not field or name == "step":
                continue
            try:
                value = float(field)
            except ValueError:
                value = math.nan
            if abs(value) <= LARGEST:
                found[name][step] = value
            else:
                odd += 1
    faults = [f"metrics.csv has {damaged:,} damaged lines, which are left out"] if damaged else []
    faults += [f"metrics.csv has {odd:,} values that are no finite numbers; they are gaps"] if odd else []
    return {
        name: Curve(*map(list, zip(*sorted(one.items()), strict=True))) for name, one in found.items() if one
    }, faults


def thinned(curve: Curve, most: int = MOST) -> Curve:
    """Return at most `most` points of a curve (4 or more): the first, the last, and the lowest and highest of each part
    of it, so that no spike is lost."""
    number = len(curve.steps)
    if number <= most:
        return curve
    parts = (most - 2) // 2
    kept = {0, number - 1}
    for part in range(parts):
        places = range(part * number // parts, (part + 1) * number // parts)
        kept |= {min(places, key=curve.values.__getitem__), max(places, key=curve.values.__getitem__)}
    order = sorted(kept)
    return Curve([curve.steps[k] for k in order], [curve.values[k] for k in order])


def _next(lines: Iterator[list[str]]) -> list[str] | None:
    """Return the fields of the next line, none for a line that csv refuses, and None at the end."""
    try:
        return next(lines, None)
    except csv.Error:
        return []


def _step(field: str) -> int | None:
    try:
        step = int(field)
    except ValueError:
        return None
    return step if 0 <= step < LAST_STEP else None
