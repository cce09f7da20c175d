"""A number with its percent sign, currency or unit, read from plain text and compared exactly."""

import re
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from lightning_modules.judge.units import CURRENCY, Unit, common_factors, find_unit

_DOZEN = Unit(frozenset({("count", 1)}), Fraction(12))
MOST_DIGITS = 1_000  # a longer number is compared as text
_ROUNDED_DIGITS = 3  # significant digits of a decimal that stands for a fraction like 1/3; or more
_WHOLE = r"(?:\d{1,3}(?:,\d{3})+|\d{1,3}(?:[ ]\d{3})+|\d{1,3}(?:\.\d{3}){2,}|\d+)(?![\d])"
_DECIMAL = rf"(?:{_WHOLE}(?:\.\d+)?|\.\d+)(?!\.?\d|,\d)"
_SCALES = {
    "hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12, "mio": 6, "mrd": 9, "万": 4, "亿": 8,
}  # fmt: skip
_SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
).split()
_TENS = dict(zip("twenty thirty forty fifty sixty seventy eighty ninety".split(), range(20, 100, 10), strict=True))
_NAMED = {name: number for number, name in enumerate(_SMALL)} | _TENS
_QUANTITY = re.compile(
    rf"""(?:(?:about|approximately|approx\.?|around|roughly|exactly|only)\s+|[≈~]\s*)?
    (?P<sign>[-+]\s*)?(?:US)?(?P<currency>[{CURRENCY}])?\s*(?P<sign2>[-+]\s*)?
    (?:
      (?P<repeating>\d*\.\d*\(\d+\))
      |(?:(?P<mixed>\d+)\ )?\(?(?P<above>\d+)\)?\s*/\s*\(?(?P<below>\d+)\)?(?![\d.,/])
      |(?:(?P<times>{_DECIMAL})\s*[*x]\s*)?(?P<base>\d+)\s*\^\s*\(?\s*(?P<exponent>[-+]?\d+)\)?
      |(?P<decimal>{_DECIMAL})(?:[eE](?P<e>[-+]?\d+))?
      |(?P<name>[a-z]+)(?:[- ](?P<ones>{"|".join(_SMALL[1:10])}))?(?=[^a-z]|$)
    )
    (?:\s*(?P<scale>{"|".join(_SCALES)})\b)?
    (?P<after>.*)""",
    re.VERBOSE | re.IGNORECASE,
)


@dataclass(frozen=True)
class Quantity:
    """A number. `value` has percent and scale words already counted in; 50 % is 1/2."""

    value: Fraction
    step: Fraction | None  # the value of its last decimal place; None for a fraction or a power
    digits: int  # significant digits as written
    percent: bool = False
    unit: Unit | None = None


def find_quantity(text: str) -> Quantity | None:
    """Return the quantity that a plain text is as a whole; None for any other text."""
    text = text.strip().rstrip(".").strip()
    found = _QUANTITY.fullmatch(text) if len(text) <= MOST_DIGITS else None
    if found is None or (number := _number(found)) is None:
        return None
    value, step, digits = number
    if (found["sign"] or found["sign2"] or "").strip() == "-":
        value = -value
    after = found["after"].strip()
    percent = re.match(r"%|per ?cent(?:age)?\b|pct\b", after, re.IGNORECASE)
    if percent:
        after = after[percent.end() :].strip()
        value, step = value / 100, None if step is None else step / 100
    if re.match(r"(?:st|nd|rd|th)\b", after, re.IGNORECASE):
        return None  # 7th is not 7
    unit = None
    name = after + (found["currency"] or "")
    if name and (unit := find_unit(after or name)) is None:
        return None
    if unit is not None and any(word in _NAMED or word in _SCALES for word in unit.words):
        return None  # one hundred twenty is more than one hundred
    if unit is not None and not unit.powers and found["after"][:1].isalpha():
        return None  # 3xy is a product
    if found["currency"] and (unit is None or not unit.powers):
        unit = find_unit(found["currency"])
    if unit and unit.powers == _DOZEN.powers:
        value, unit = value * unit.factor, None
    return Quantity(value, step, digits, bool(percent), unit if unit and (unit.powers or unit.words) else None)


def _number(found: re.Match[str]) -> tuple[Fraction, Fraction | None, int] | None:
    """Return value, value of the last place and significant digits; None for no number or one that is too large."""
    scale = Fraction(10) ** _SCALES[found["scale"].lower()] if found["scale"] else Fraction(1)
    if found["repeating"]:
        head, _, again = found["repeating"].rstrip(")").partition("(")
        whole, _, fixed = head.partition(".")
        nines = (10 ** len(again) - 1) * 10 ** len(fixed)
        return (Fraction(int((whole + fixed + again) or 0) - int((whole + fixed) or 0), nines)), None, 0
    if found["below"]:
        if not int(found["below"]):
            return None
        return int(found["mixed"] or 0) + Fraction(int(found["above"]), int(found["below"])) * scale, None, 0
    if found["base"]:
        exponent, base = int(found["exponent"]), int(found["base"])
        if abs(exponent) * base.bit_length() > 3 * MOST_DIGITS or (not base and exponent <= 0):
            return None
        times = _decimal(found["times"])[0] if found["times"] else Fraction(1)
        return times * Fraction(base) ** exponent, None, 0
    if found["decimal"]:
        value, step, digits = _decimal(found["decimal"])
        exponent = int(found["e"] or 0)
        if abs(exponent) > MOST_DIGITS:
            return None
        scale *= Fraction(10) ** exponent
        return value * scale, step * scale, digits
    name = found["name"].lower()
    if name not in _NAMED or (found["ones"] and name not in _TENS):
        return None
    return (_NAMED[name] + (_NAMED[found["ones"].lower()] if found["ones"] else 0)) * scale, None, 0


def _decimal(text: str) -> tuple[Fraction, Fraction, int]:
    text = text.replace(",", "").replace(" ", "")
    if text.count(".") > 1:
        text = text.replace(".", "")
    number = Decimal(text)
    places = text.partition(".")[2]
    return Fraction(number), Fraction(1, 10 ** len(places)), len(text.replace(".", "").lstrip("0"))


def same_quantity(one: Quantity, other: Quantity) -> bool:
    """Return whether two quantities are equal. A missing unit or currency is that of the other."""
    if one.percent != other.percent:
        mark, bare = (one, other) if one.percent else (other, one)
        if bare.unit is not None:
            return False
        # "50" for "50 %" leaves the sign out; but 0.5 beside 0.5 % may be a ratio
        return _same(one.value, one, other.value, other) or (abs(bare.value) > 1 and mark.value * 100 == bare.value)
    if one.unit is None or other.unit is None:
        return _same(one.value, one, other.value, other)
    if (factors := common_factors(one.unit, other.unit)) is None:
        return False
    if factors[0] != factors[1]:
        return one.value * factors[0] == other.value * factors[1]
    return _same(one.value, one, other.value, other)


def _same(a: Fraction, one: Quantity, b: Fraction, other: Quantity) -> bool:
    if a == b:
        return True
    for exact, value, rounded in ((a, b, other), (b, a, one)):
        if rounded.step is not None and rounded.digits >= _ROUNDED_DIGITS and _endless(exact):
            partner = one if rounded is other else other
            if partner.step is None and abs(exact - value) <= rounded.step / 2:
                return True
    return False


def _endless(value: Fraction) -> bool:
    """Whether the decimals of a number never end."""
    below = value.denominator
    for prime in (2, 5):
        while below % prime == 0:
            below //= prime
    return below != 1
