"""The answer that reasoning names at its end, and whether the answer that follows is another one."""

import re
from typing import NamedTuple

from lightning_modules.judge.choice import find_choice
from lightning_modules.judge.final_answer import final_answer, is_value, last_boxed
from lightning_modules.judge.judge import Rung, judge
from lightning_modules.judge.notation import LONGEST, plain

# Rungs that know both values. Other words, or another form of an expression, may still say the same
_FIRM: frozenset[Rung] = frozenset(("choice", "time, ratio, date", "number"))
_CHOSEN = re.compile(r"\b(?:correct|right|best|answer|choose|pick|select|go with)\b", re.IGNORECASE)
_SENTENCE_ENDS = re.compile(r"(?<=[^\W\d])[.!?]\s+|[.!?]\s+(?=[A-Z(])")


class Conclusion(NamedTuple):
    """The answer that some reasoning names, and whether the answer after it contradicts it."""

    named: str
    contradicted: bool


def conclusion(reasoning: str, answer: str) -> Conclusion | None:
    r"""Return what reasoning concludes beside the answer that follows it; None if it names no value as its answer.

    It names one in \boxed{}, or in its last line after "the answer is" or as "option B is correct". A value on the way
    is not a conclusion, and neither is "A, but I am not sure".
    """
    named = named_answer(reasoning)
    if named is None:
        return None
    verdict = judge(answer, named)
    letters = letter_of(answer), letter_of(named)
    same = verdict.right or verdict.rung not in _FIRM or (letters[0] is not None and letters[0] == letters[1])
    return Conclusion(named, not same)


def letter_of(text: str) -> str | None:
    """Return the letter of the choice that is the final answer of a text, A to J; None for another answer."""
    found = final_answer(text)
    choice = find_choice(plain(found.text)) if found and len(found.text) <= LONGEST else None
    if found is None or choice is None or not (choice.marked or found.text.strip().isupper()):
        return None  # a lone small letter is a variable
    return choice.letter


def named_answer(reasoning: str) -> str | None:
    """Return the value that reasoning names as its answer; None if it names none."""
    if last_boxed(reasoning):
        found = final_answer(reasoning)
    else:
        line = reasoning.rstrip().rpartition("\n")[2]
        found = final_answer(line)
        if found and found.place == "choice" and not _CHOSEN.search(_SENTENCE_ENDS.split(line)[-1]):
            return None  # the last sentence may be about a choice that was ruled out
        if found and found.place in ("last line", "sentence"):
            return None
    return found.text if found and is_value(found.text) else None
