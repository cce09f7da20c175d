"""Equations whose value is the answer: `x = 7`, `7 = x`, `5 + 7 = 12`."""

import re
from dataclasses import dataclass

_NAME = re.compile(
    r"\\?[A-Za-zα-ωΑ-Ω](?:_\w+|_\{\w+\}|'|\d)?(?:\([a-z](?:,\s*[a-z])*\))?|\\[a-z]+(?:\([a-z]\))?|(?:[A-Za-z]{2,}\s?){1,5}"
)
_WORK = re.compile(r"(?:[\d\s+\-*/^().,%$!{}πC]|sqrt|sin|cos|tan|log|ln|\\binom)*")
_EQUALS = re.compile(r"(?<![<>!=≤≥≠])&?\s*=(?!=)\s*")


@dataclass(frozen=True)
class Equation:
    """A value and the name it is given; no name after bare arithmetic. `work`: the arithmetic before the value."""

    name: str
    value: str
    work: str = ""


def find_equation(text: str) -> Equation | None:
    """Return the name and the value of a text with an equals sign; None for an equation of two terms."""
    sides = [side.strip() for side in _EQUALS.split(text.strip().rstrip("."))]
    if len(sides) < 2 or not all(sides) or any(c in text for c in "<>≤≥≠") or any("," in side for side in sides[:-1]):
        return None
    if _NAME.fullmatch(sides[0]):
        return Equation(_plain_name(sides[0]), sides[-1])
    if len(sides) == 2 and _NAME.fullmatch(sides[1]) and not _NAME.fullmatch(sides[0]):
        return Equation(_plain_name(sides[1]), sides[0])
    if all(_WORK.fullmatch(side) and re.search(r"\d", side) for side in sides[:-1]):
        return Equation("", sides[-1], "=".join(sides[:-1]))
    return None


def _plain_name(name: str) -> str:
    return " ".join(name.replace("{", "").replace("}", "").split())
