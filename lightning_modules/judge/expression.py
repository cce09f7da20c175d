"""Expressions: which texts are mathematics, so that Math-Verify may compare them.

Math-Verify reads every text as a product of symbols: `listen` equals `silent`, 9:30 equals 9:45. It also drops what it
does not know, such as the base of a number. So words, texts with colons, and expressions that differ in such a mark are
never given to it.
"""

import re

from lightning_modules.judge.math_verify_worker import MathVerify, Outcome
from lightning_modules.judge.units import Unit, find_unit

_LONGEST = 500  # characters; its parser needs seconds for longer ones
_FUNCTIONS = frozenset(
    "sin cos tan cot sec csc log ln exp sqrt max min gcd lcm det lim arcsin arccos arctan mod pi".split()
)
_COMMANDS = _FUNCTIONS | frozenset(
    """frac binom cdot times div infty leq geq neq approx cup emptyset theta alpha beta gamma lambda omega phi sigma mu
    delta rho epsilon overline bar hat vec mathbb int sum prod""".split()
)  # that Math-Verify reads; it drops others and calls what is left the same
_WORDS = frozenset(  # that a product of letters would hardly be
    """the and not for but yes no is are was has had of to in at or if by on as an be it we he she you his her all
    any one two six ten sum odd out off per day men who how why add get got its let now old new red sun
    mon cat dog""".split()
)
_UNIT_AFTER = re.compile(
    r"(.*?[\d})πa-z])\s*(?:\\(?:text|mathrm)\{\s*([^{}]+)\}(\^\{?[23]\}?)?|\s([a-zA-Z]{2,}(?:\^\{?[23]\}?)?))"
)
_MARKS = re.compile(
    r"'|_\s*(?:\{[^{}]*\}|\w)|\\(?:overline|bar|vec|hat|mathbb|angle|triangle|int|sum|prod|lim)(?![a-zA-Z])"
)
_LOGARITHM = re.compile(r"\\log\s*_\s*(?:\{[^{}]*\}|\w)")
_RELATION = re.compile(r"[<>]|\\(?:leq|geq|neq)(?![a-zA-Z])")
_NAMES = re.compile(r"\\(?:begin|end)\s*\{[a-z]*matrix\}|\\(?:text|mathrm)\{\s*\}")


def compare_expressions(written: str, reference: str, math_verify: MathVerify) -> Outcome | None:
    """Return what Math-Verify says of two LaTeX texts; None if they are not for it."""
    (ours, our_unit), (theirs, their_unit) = _without_unit(written), _without_unit(reference)
    if not (_is_maths(ours) and _is_maths(theirs)) or not re.search(r"[+\-*/^=<>!\\]", ours + theirs):
        return None
    if our_unit and their_unit and our_unit != their_unit:
        return "different"
    if _marks(ours) != _marks(theirs) or bool(_RELATION.search(ours)) != bool(_RELATION.search(theirs)):
        return "different"
    letters = [set(re.sub(r"\\[a-zA-Z]+|[^a-zA-Z]", "", side)) for side in (ours, theirs)]
    if any(letter.swapcase() in letters[1] for letter in letters[0] - letters[1]):
        return "different"  # it reads A as a
    return math_verify.compare(theirs, ours)


def _without_unit(source: str) -> tuple[str, Unit | None]:
    """Return an expression without the known unit after it, and the unit."""
    found = _UNIT_AFTER.fullmatch(source) if len(source) <= _LONGEST else None
    unit = find_unit((found[2] or found[4] or "") + (found[3] or "")) if found else None
    return (found[1], unit) if found and unit and unit.powers else (source, None)


def _marks(source: str) -> list[str]:
    """Return what Math-Verify does not see: bases of numbers, subscripts, bars, arrows; and work left undone."""
    return sorted(re.sub(r"[{}\s]", "", mark) for mark in _MARKS.findall(_LOGARITHM.sub("", source)))


def _is_maths(source: str) -> bool:
    """Whether a text is an expression: no sentence, no word but the names of functions and short products like xy."""
    if len(source) > _LONGEST or source.count("{") != source.count("}"):
        return False
    if set(re.findall(r"\\([a-zA-Z]+)", _NAMES.sub(" ", source))) - _COMMANDS:
        return False
    rest = re.sub(r"\\[a-zA-Z]+", " ", _NAMES.sub(" ", source))
    if re.search(r'[:;"?|]', rest):
        return False
    words = re.findall(r"[^\W\d_]{2,}", rest)
    return all(
        word in _FUNCTIONS or (len(word) <= 3 and word.isascii() and word.lower() not in _WORDS) for word in words
    )
