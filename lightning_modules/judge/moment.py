"""Times of day, ratios and dates: texts of numbers that are no numbers."""

import re
from dataclasses import dataclass
from math import gcd

_TIME = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2}))?\s*([ap])?\.?(?:m\.?)?", re.IGNORECASE)
_HOUR = re.compile(r"(\d{1,2})\s*([ap])\.?m\.?", re.IGNORECASE)
_RATIO = re.compile(r"(\d+(?:\s*:\s*\d+)+|\d+(?:\s+to\s+\d+)+)")
_NUMERIC_DATE = re.compile(r"(\d{1,4})([-/.])(\d{1,2})\2(\d{1,4})")
_MONTHS = "january february march april may june july august september october november december".split()
_MONTH = rf"(?P<month>{'|'.join(f'{name[:3]}(?:{name[3:]})?' for name in _MONTHS)}|sept)\.?"
_YEAR = r"(?:,?\s+(?P<year>\d{4}))?"
_WEEKDAY = r"(?:(?:mon|tues|wednes|thurs|fri|satur|sun)day,?\s+)?"
_NAMED_DATES = (
    re.compile(rf"{_WEEKDAY}{_MONTH}\s+(?P<day>\d{{1,2}})(?:st|nd|rd|th)?{_YEAR}", re.IGNORECASE),
    re.compile(rf"{_WEEKDAY}(?:the\s+)?(?P<day>\d{{1,2}})(?:st|nd|rd|th)?\s+(?:of\s+)?{_MONTH}{_YEAR}", re.IGNORECASE),
)


@dataclass(frozen=True)
class Moment:
    """`time`: hour, minute, second on the 24-hour clock. `date`: year (0 for none), month, day. `parts`: a date whose
    order is not known, as it is written. `ratio`: its terms without a common divisor. `range`: "3 to 2" as it is
    written; it may be a ratio.
    """

    kind: str
    numbers: tuple[int, ...]
    ratio: tuple[int, ...] = ()  # of a range, and of a time without AM and PM, which may be ratios, too


def find_moment(text: str) -> Moment | None:
    """Return the time, ratio or date that a plain text is as a whole; None for any other text."""
    text = text.strip().rstrip(".").strip() if not re.search(r"[ap]\.m\.$", text, re.IGNORECASE) else text.strip()
    if len(text) > 100:
        return None
    if found := _NUMERIC_DATE.fullmatch(text):
        return _numeric_date(found)
    for pattern in _NAMED_DATES:
        if found := pattern.fullmatch(text):
            month = [name[:3] for name in _MONTHS].index(found["month"][:3].lower()) + 1
            return Moment("date", (int(found["year"] or 0), month, int(found["day"])))
    ratio = _ratio(text)
    if (found := _TIME.fullmatch(text)) and int(found[1]) < 25 and int(found[2]) < 60 and int(found[3] or 0) < 60:
        half = (found[4] or "").lower()
        return Moment("time", (_hour(int(found[1]), half), int(found[2]), int(found[3] or 0)), () if half else ratio)
    if found := _HOUR.fullmatch(text):
        return Moment("time", (_hour(int(found[1]), found[2].lower()), 0, 0))
    if ratio and ":" not in text:
        return Moment("range", tuple(map(int, re.findall(r"\d+", text))), ratio)
    return Moment("ratio", ratio, ratio) if ratio else None


def same_moment(one: Moment, other: Moment) -> bool:
    if one.kind == other.kind:
        return one.numbers == other.numbers
    return bool(one.ratio) and one.ratio == other.ratio  # 10:15 may be a time, 2:3 is a ratio


def _hour(hour: int, half: str) -> int:
    return hour if not half else hour % 12 + (12 if half == "p" else 0)


def _ratio(text: str) -> tuple[int, ...]:
    if not _RATIO.fullmatch(text):
        return ()
    terms = [int(term) for term in re.findall(r"\d+", text)]
    divisor = gcd(*terms) or 1
    return tuple(term // divisor for term in terms)


def _numeric_date(found: re.Match[str]) -> Moment | None:
    first, middle, last = int(found[1]), int(found[3]), int(found[4])
    if len(found[1]) == 4:
        return Moment("date", (first, middle, last))
    if len(found[1]) > 2 or len(found[4]) == 3:
        return None
    if len(found[4]) == 4 and (first > 12) != (middle > 12):
        return Moment("date", (last, *((middle, first) if first > 12 else (first, middle))))
    return Moment("parts", (first, middle, last))
