"""The conditions of `data.filters` on the columns and the size of a row.

    filters: {difficulty: [medium, hard, null], language: EN, tokens: {min: 200, max: 2000}, steps: {min: 2}}

A list keeps a row whose value is in the list. A single value is a list with this value. null stands for a row without a
value. If the column holds a list, one matching element is enough; an empty list counts as no value. `{min, max}`
keeps numbers, both ends included; either end may be missing. `tokens` (length of the whole row) and `steps` (its think
blocks in training) are computed, not columns.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from errors import UserError, suggest

SIZES = ("tokens", "steps")


@dataclass(frozen=True)
class OneOf:
    """True for a value in `values`. Each is stored as (is a boolean, value), because in Python True equals 1."""

    values: frozenset[tuple[bool, Any]]

    def holds(self, value: Any) -> bool:
        try:
            return (isinstance(value, bool), value) in self.values
        except TypeError:  # unhashable: no filter can name a nested value
            return False

    def kinds(self) -> set[str]:
        """The kinds of values that can meet it."""
        return {_kind(value) for _, value in self.values}


@dataclass(frozen=True)
class Between:
    """True for a number from `min` to `max`, both included. None means no limit."""

    min: float | None
    max: float | None

    def holds(self, value: Any) -> bool:
        if not _is_number(value):
            return False
        return (self.min is None or value >= self.min) and (self.max is None or value <= self.max)

    def kinds(self) -> set[str]:
        """The kinds of values that can meet it."""
        return {_kind(0)}


class Filters:
    """The conditions of `data.filters`. A row has to meet all of them.

    Raises UserError for a condition that is malformed or that no row can meet.
    """

    def __init__(self, given: Mapping[str, Any] | None) -> None:
        if given is not None and not isinstance(given, Mapping):
            raise UserError(
                "data.filters", given, "is not a mapping", "give conditions by column: {difficulty: [hard]}"
            )
        conditions = {str(name): _condition(f"data.filters.{name}", value) for name, value in (given or {}).items()}
        self.sizes = {name: conditions.pop(name) for name in SIZES if name in conditions}
        self.columns = conditions
        for name, condition in self.sizes.items():
            whole = isinstance(condition, Between) or all(type(value) is int for _, value in condition.values)
            if not whole:
                fix = "give whole numbers or a range: {min: 1, max: 100}"
                raise UserError(f"data.filters.{name}", (given or {})[name], "is not a whole number", fix)

    def check(self, present: Sequence[str]) -> None:
        """Raise UserError for a condition on a column that is not in `present`."""
        missing = [name for name in self.columns if name not in present]
        if missing:
            problem = f"is not a column; the columns are {', '.join(present)}; tokens and steps always exist"
            fix = suggest(missing[0], [*present, *SIZES], "choose among these")
            raise UserError("data.filters", ", ".join(missing), problem, fix)

    def of_row(self, row: Mapping[str, Any]) -> str | None:
        """Return the reason to drop a row by its columns, like "data.filters.difficulty is not met", or None. The
        reason tells if the value is of another kind than all values of the filter."""
        for name, condition in self.columns.items():
            value = row.get(name)
            items = (value or [None]) if isinstance(value, list) else [value]
            if not any(map(condition.holds, items)):
                found, wanted = {_kind(item) for item in items} - {_kind(None)}, condition.kinds() - {_kind(None)}
                if not found or not wanted or found & wanted:
                    return f"data.filters.{name} is not met"
                kinds = " and ".join(sorted(found)), " or ".join(sorted(wanted))
                return f"data.filters.{name} is not met: the column holds {kinds[0]}, the filter asks for {kinds[1]}"
        return None

    def of_size(self, tokens: int, steps: int) -> str | None:
        """Return the reason to drop a row by its size, or None."""
        for name, size in zip(SIZES, (tokens, steps), strict=True):
            if name in self.sizes and not self.sizes[name].holds(size):
                return f"data.filters.{name} is not met"
        return None


def _condition(key: str, given: Any) -> OneOf | Between:
    if isinstance(given, Mapping):
        return _range(key, given)
    values = list(given) if isinstance(given, (list, tuple, set, frozenset)) else [given]
    if not values:
        raise UserError(key, "[]", "would keep nothing", "give the values to keep, or delete this condition")
    if nested := next((value for value in values if isinstance(value, (Mapping, list, tuple, set))), None):
        raise UserError(key, nested, "is not a single value", "give a list of values or one range: {min: 1, max: 2}")
    return OneOf(frozenset((isinstance(value, bool), value) for value in values))


def _range(key: str, given: Mapping[str, Any]) -> Between:
    unknown = [str(name) for name in given if name not in ("min", "max")]
    if unknown or not given:
        raise UserError(
            key, ", ".join(unknown) or "{}", "is not an end of a range", "write a range as {min: …, max: …}"
        )
    ends = {name: end for name, end in given.items() if end is not None}
    for name, end in ends.items():
        if not _is_number(end):
            raise UserError(f"{key}.{name}", end, "is not a number", "give a number, or a list of the values to keep")
    low, high = ends.get("min"), ends.get("max")
    if low is not None and high is not None and low > high:
        raise UserError(key, dict(given), "would keep nothing: min is above max", "exchange min and max")
    return Between(low, high)


def _kind(value: Any) -> str:
    """The kind of a value in the words of the reasons."""
    if isinstance(value, bool):
        return "true or false"
    if _is_number(value):
        return "numbers"
    if isinstance(value, str):
        return "texts"
    return "no value" if value is None or value != value else "other values"


def _is_number(value: Any) -> bool:
    """Whether the value is a number that can be compared: no boolean, no NaN."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value == value
