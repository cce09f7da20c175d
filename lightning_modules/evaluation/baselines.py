"""What is right without reading a question: always one answer, always the first choice, a random choice.

Also the letters of choices: a model may prefer a position to an answer.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from lightning_modules.judge.conclusion import letter_of
from lightning_modules.judge.final_answer import final_answer
from lightning_modules.judge.notation import LONGEST, key, plain

LETTERS = "ABCDEFGHIJ"
NO_LETTER = "none"  # an answer that is no choice, or was cut off
LABELS = {
    "baseline_frequent": "  always most frequent",
    "baseline_first": "  always first choice",
    "baseline_random": "  random choice",
}  # of the figures in tables, in their order
_OPTION = re.compile(r"\(([A-J])\)|^[ \t]*(?:[-*][ \t]*)?([A-J])[).:](?=\s)", re.MULTILINE)


class Asked(NamedTuple):
    """A question without its words."""

    reference: str  # the right answer
    options: int  # choices that the question lists; 0 if it lists none
    answer: str | None  # the model's; None if it was cut off
    right: bool


class Letter(NamedTuple):
    """Shares of a letter, from 0 to 1, among the questions whose right answer is a choice."""

    answers: float
    references: float


def options_in(question: str) -> int:
    """Return the number of choices that a question lists as (A), (B) … or as lines that begin with A., B. …; 0 without
    two of them."""
    most = expected = 0
    for found in _OPTION.finditer(question):
        place = LETTERS.index(found[1] or found[2])
        expected = place + 1 if place in (0, expected) else expected
        most = max(most, expected)
    return most if most > 1 else 0


def baselines(asked: Sequence[Asked]) -> dict[str, float]:
    """Return the ratio of all questions that each baseline answers right, from 0 to 1; empty for no questions.

    Those of choices are missing if no right answer is one. A random choice is right in one of the listed options; for a
    question that lists none they reach to the last letter of all right answers.
    """
    if not asked:
        return {}
    letters = [letter_of(one.reference) for one in asked]
    answers = Counter(letter or _normal(one.reference) for letter, one in zip(letters, asked, strict=True))
    found = {"baseline_frequent": max(answers.values()) / len(asked)}
    places = {number: LETTERS.index(letter) for number, letter in enumerate(letters) if letter is not None}
    if places:
        widest = max(2, max(places.values()) + 1)
        options = [max(asked[k].options, place + 1) if asked[k].options else widest for k, place in places.items()]
        found["baseline_first"] = sum(place == 0 for place in places.values()) / len(asked)
        found["baseline_random"] = sum(1 / number for number in options) / len(asked)
    return found


def letters(asked: Sequence[Asked]) -> dict[str, Letter]:
    """Return the shares of each letter up to the last one that occurs, and of `none`; empty if no right answer is a
    choice. An answer in the words of the right option has its letter."""
    pairs = list(_pairs(asked))
    if not pairs:
        return {}
    ours, theirs = Counter(one for one, _ in pairs), Counter(one for _, one in pairs)
    last = max(LETTERS.find(letter) for pair in pairs for letter in pair)
    return {one: Letter(ours[one] / len(pairs), theirs[one] / len(pairs)) for one in (*LETTERS[: last + 1], NO_LETTER)}


def letter_label(letter: str, references: float) -> str:
    """Return the label of a letter's share of the answers; it has the share of the right answers."""
    if letter == NO_LETTER:
        return "answers without letter"
    return f"answers ({letter}), right {100 * references:.0f} %"


def _pairs(asked: Sequence[Asked]) -> Iterator[tuple[str, str]]:
    """(letter of the answer, letter of the right answer) of each question with one."""
    for one in asked:
        if (reference := letter_of(one.reference)) is not None:
            ours = reference if one.right else letter_of(one.answer) if one.answer is not None else None
            yield ours or NO_LETTER, reference


def _normal(text: str) -> str:
    """An answer in one notation: equal ones are the same answer."""
    found = final_answer(text)
    return key(plain(found.text)) if found and len(found.text) <= LONGEST else text.strip()
