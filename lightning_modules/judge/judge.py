"""The judge: a ladder of rules, from equal text to Math-Verify. The first rung that knows both answers decides."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from lightning_modules.judge.choice import same_choice
from lightning_modules.judge.equation import Equation, find_equation
from lightning_modules.judge.expression import compare_expressions
from lightning_modules.judge.final_answer import FinalAnswer, final_answer, is_value
from lightning_modules.judge.lists import Listed, find_list
from lightning_modules.judge.math_verify_worker import MathVerify
from lightning_modules.judge.moment import find_moment, same_moment
from lightning_modules.judge.notation import LONGEST, key, latex, plain
from lightning_modules.judge.quantity import find_quantity, same_quantity

Rung = Literal[
    "no answer", "text", "choice", "time, ratio, date", "number", "list", "words", "math-verify", "time limit", "other"
]
_Compare = Callable[[str, str], tuple[bool, Rung]]

_SENTENCE_WORDS = frozenset(
    "the a an is are was were be there it so thus hence of to in that this and we have has total answer number".split()
)


@dataclass(frozen=True)
class Verdict:
    """Whether an answer is right, the rung that decided, and the two final answers that it compared."""

    right: bool
    rung: Rung
    written: str = ""
    reference: str = ""


_SHARED = MathVerify()


def judge(written: str, reference: str, math_verify: MathVerify = _SHARED) -> Verdict:
    """Return whether a written answer says the same as a reference: both are texts after the last thought.

    An empty answer is never right. All processes of a run have a Math-Verify worker of their own, and it starts only
    where the plain rungs know no answer.
    """
    if written.strip() and written.split() == reference.split() and (whole := final_answer(written)):
        return Verdict(True, "text", whole.text, whole.text)
    ours, theirs = final_answer(written), final_answer(reference)
    if ours is None or theirs is None:
        return Verdict(False, "no answer", ours.text if ours else "", theirs.text if theirs else "")
    if not any(side.place != "last line" or side.whole or is_value(side.text) for side in (ours, theirs)):
        return Verdict(False, "words", ours.text, theirs.text)  # two long texts may end with the same kind words
    right, rung = _compare(ours.text, theirs.text, math_verify)
    if right and ours.sentence and theirs.sentence and not _same_subject(ours, theirs):
        right, rung = False, "words"
    return Verdict(right, rung, ours.text, theirs.text)


def _same_subject(ours: FinalAnswer, theirs: FinalAnswer) -> bool:
    """Whether two unmarked sentences with the same value say it of the same thing: "Ann has 5", "Bob has 5".

    After a yes or no only their numbers are compared.
    """
    what = r"\d+" if ours.place == "last line" else r"\w+"
    words = [
        {word for word in re.findall(what, side.sentence.casefold()) if word not in _SENTENCE_WORDS}
        for side in (ours, theirs)
    ]
    return words[0] <= words[1] or words[1] <= words[0]


def _compare(written: str, reference: str, math_verify: MathVerify, inside: bool = False) -> tuple[bool, Rung]:
    """Compare two final answers. `inside`: they are elements of lists."""
    if max(len(written), len(reference)) > LONGEST:
        same = written.split() == reference.split()
        return same, "text"
    ours, theirs = plain(written), plain(reference)
    if not key(ours) or not key(theirs):
        return bool(ours) and ours == theirs, "text" if ours else "no answer"
    if key(ours) == key(theirs):
        return True, "text"
    if (same_letter := same_choice(ours, theirs)) is not None:
        return same_letter, "choice"

    moments = find_moment(ours), find_moment(theirs)
    if moments[0] and moments[1]:
        return same_moment(*moments), "time, ratio, date"  # type: ignore[arg-type]
    if moments[0] or moments[1]:
        return False, "time, ratio, date"

    quantities = find_quantity(ours), find_quantity(theirs)
    if quantities[0] and quantities[1]:
        return same_quantity(*quantities), "number"  # type: ignore[arg-type]

    def compare(one: str, other: str) -> tuple[bool, Rung]:
        return _compare(one, other, math_verify, inside=True)

    one, other = None if quantities[0] else find_list(ours), None if quantities[1] else find_list(theirs)
    if not inside and (listed := _compare_lists(one, other, ours, theirs, compare)) is not None:
        return listed, "list"
    equations = find_equation(ours), find_equation(theirs)
    if (equation := _compare_equations(*equations, ours, theirs, compare)) is not None:
        return equation
    outcome = compare_expressions(latex(written), latex(reference), math_verify)
    if outcome is None:
        return False, "words" if re.search(r"[^\W\d_]{2,}", ours + theirs) else "other"
    return outcome == "same", "time limit" if outcome == "time limit" else "math-verify"


def _compare_lists(one: Listed | None, other: Listed | None, ours: str, theirs: str, compare: _Compare) -> bool | None:
    """Return whether two lists have the same elements; None if neither text is a list."""
    if one is None and other is None:
        return None
    if one is None or other is None:
        listed, text = (one, theirs) if one else (other, ours)
        assert listed is not None
        # {7} is 7; but a word, a function or a sum may have commas and brackets and be no list
        return compare(listed.elements[0], text)[0] if len(listed.elements) == 1 else False
    if len(one.elements) != len(other.elements):
        return False
    kinds = {one.brackets, other.brackets}
    if len(kinds) > 1 and ("" not in kinds or ("[]" in kinds and len(one.elements) == 2)):
        return False  # [0, 1] is an interval
    sides = [_named(side.elements) for side in (one, other)]
    if sides[0] and sides[1]:
        return sorted(sides[0]) == sorted(sides[1]) and all(compare(v, sides[1][n])[0] for n, v in sides[0].items())
    elements = [_values(side) for side in (one, other)]
    names = [{found.name for e in side.elements if (found := find_equation(e)) and found.name} for side in (one, other)]
    if names[0] and names[1] and names[0] != names[1]:
        return False
    if one.ordered or other.ordered or sides[0] or sides[1]:
        return all(compare(a, b)[0] for a, b in zip(*elements, strict=True))
    left = list(elements[1])
    for element in elements[0]:
        place = next((k for k, candidate in enumerate(left) if compare(element, candidate)[0]), None)
        if place is None:
            return False
        del left[place]
    return True


def _named(elements: tuple[str, ...]) -> dict[str, str]:
    """Return the values by name of a list like "x = 1, y = 2"; empty for any other, also for "x = 1 or x = 2"."""
    found = [find_equation(element) for element in elements]
    named = {equation.name: equation.value for equation in found if equation and equation.name}
    return named if len(named) == len(elements) else {}


def _values(listed: Listed) -> list[str]:
    found = [find_equation(element) for element in listed.elements]
    names = {equation.name for equation in found if equation}
    if len(names) == 1 or len(names) == sum(bool(equation and equation.name) for equation in found):
        return [equation.value if equation else text for equation, text in zip(found, listed.elements, strict=True)]
    return list(listed.elements)


def _compare_equations(
    one: Equation | None, other: Equation | None, ours: str, theirs: str, compare: _Compare
) -> tuple[bool, Rung] | None:
    """Return whether two values are equal, where at least one text is an equation for a value; else None."""
    if one and other:
        if one.name != other.name or bool(one.work) != bool(other.work):
            return compare(one.value, other.value) if not one.name or not other.name else (False, "other")
        if one.work and sorted(re.findall(r"\d+", one.work)) != sorted(re.findall(r"\d+", other.work)):
            return False, "other"
        return compare(one.value, other.value)
    if one is None and other is None:
        return None
    if re.search("[=<>≤≥≠]", theirs if one else ours):
        return None
    found = one or other
    assert found is not None
    value, text = (found.value, theirs) if one else (found.value, ours)
    if re.fullmatch("[A-Za-z]", value):
        return False, "other"  # a = b is not b
    return compare(value, text) if one else compare(text, value)
