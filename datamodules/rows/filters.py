"""Which rows are wanted: the conditions of `data.where`, on the columns of a row and on its size.

    where: {difficulty: [medium, hard, null], language: EN, tokens: {min: 200, max: 2000}, steps: {min: 2}}

A plain value is a list of one. A list holds a row whose value is in it, null one that has none; where the column holds
a list itself, one element is enough, and an empty one is none. `{min, max}`, both inclusive and either of them
optional, holds numbers. `tokens` (of the whole row) and `steps` (its think blocks, as they are trained on) are no
columns: they are computed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from errors import UserError, did_you_mean

SIZES = ("tokens", "steps")


@dataclass(frozen=True)
class OneOf:
    """`values` with whether each is a boolean, for to Python true is 1."""

    values: frozenset[tuple[bool, Any]]

    def holds(self, value: Any) -> bool:
        try:
            return (isinstance(value, bool), value) in self.values
        except TypeError:  # unhashable: a nested value equals nothing that `where` can name
            return False


@dataclass(frozen=True)
class Between:
    """Both ends inclusive; None is no end."""

    min: float | None
    max: float | None

    def holds(self, value: Any) -> bool:
        if not _is_number(value):
            return False
        return (self.min is None or value >= self.min) and (self.max is None or value <= self.max)


class Filters:
    """The conditions of `where`, all of which a row has to meet.

    Raises UserError, naming the condition, for one that is malformed or that nothing can meet.
    """

    def __init__(self, where: Mapping[str, Any] | None) -> None:
        if where is not None and not isinstance(where, Mapping):
            raise UserError("data.where", where, "is no mapping", "give conditions by column: {difficulty: [hard]}")
        conditions = {str(name): _condition(f"data.where.{name}", given) for name, given in (where or {}).items()}
        self.sizes = {name: conditions.pop(name) for name in SIZES if name in conditions}
        self.columns = conditions
        for name, condition in self.sizes.items():
            whole = isinstance(condition, Between) or all(type(value) is int for _, value in condition.values)
            if not whole:
                fix = "give whole numbers or a range: {min: 1, max: 100}"
                raise UserError(f"data.where.{name}", (where or {})[name], "is no number of them", fix)

    def check(self, present: Sequence[str]) -> None:
        """Raises UserError for conditions on columns that are not among those present."""
        missing = [name for name in self.columns if name not in present]
        if missing:
            near = did_you_mean(missing[0], [*present, *SIZES])
            problem = f"is no column; there are {', '.join(present)}, and tokens and steps of every row"
            fix = f"did you mean {near}?" if near else "choose among these"
            raise UserError("data.where", ", ".join(missing), problem, fix)

    def of_row(self, row: Mapping[str, Any]) -> str | None:
        """The first condition that the columns of this row do not meet, like "where: difficulty", if any."""
        for name, condition in self.columns.items():
            value = row.get(name)
            items = (value or [None]) if isinstance(value, list) else [value]
            if not any(map(condition.holds, items)):
                return f"where: {name}"
        return None

    def of_size(self, tokens: int, steps: int) -> str | None:
        """Likewise for the size of a row."""
        for name, size in zip(SIZES, (tokens, steps), strict=True):
            if name in self.sizes and not self.sizes[name].holds(size):
                return f"where: {name}"
        return None


def _condition(key: str, given: Any) -> OneOf | Between:
    if isinstance(given, Mapping):
        return _range(key, given)
    values = list(given) if isinstance(given, (list, tuple, set, frozenset)) else [given]
    if not values:
        raise UserError(key, "[]", "would keep nothing", "give the values to keep, or leave it out")
    if nested := next((value for value in values if isinstance(value, (Mapping, list, tuple, set))), None):
        raise UserError(key, nested, "is no plain value", "give a list of values or one range: {min: 1, max: 2}")
    return OneOf(frozenset((isinstance(value, bool), value) for value in values))


def _range(key: str, given: Mapping[str, Any]) -> Between:
    unknown = [str(name) for name in given if name not in ("min", "max")]
    if unknown or not given:
        raise UserError(key, ", ".join(unknown) or "{}", "is no end of a range", "a range is {min: …, max: …}")
    ends = {name: end for name, end in given.items() if end is not None}
    for name, end in ends.items():
        if not _is_number(end):
            raise UserError(f"{key}.{name}", end, "is no number", "give numbers, or a list of the values to keep")
    low, high = ends.get("min"), ends.get("max")
    if low is not None and high is not None and low > high:
        raise UserError(key, dict(given), "would keep nothing: min is above max", "exchange them")
    return Between(low, high)


def _is_number(value: Any) -> bool:
    """Whether it is one that can be compared: neither a boolean nor NaN."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value == value
