"""Scores of answered rows: well-formed thinking, endings, right answers."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from lightning_modules.generation.think_response import ThinkResponse

BOX = r"\boxed{"


@dataclass(frozen=True)
class AnsweredRow:
    """A held-out row with the model's response."""

    row: int
    group: str
    prompt: str
    written: ThinkResponse  # by the model
    reference: ThinkResponse  # of the data
    rows: int = 1  # rows of the data that ask the same

    @property
    def key(self) -> str:
        """The question and its answer as a short name, the same in each measurement of the same rows."""
        asked = f"{self.prompt}\0{self.reference.answer}".encode("utf-8", "surrogatepass")
        return f"{self.row}-{blake2b(asked, digest_size=6).hexdigest()}"

    @property
    def matches(self) -> bool:
        return same_answer(self.written, self.reference)

    def as_json(self) -> dict[str, Any]:
        """Return the object that `predict` writes."""
        known = {"row": self.row, "reference": self.reference.answer.strip(), "matches": self.matches}
        return known | self.written.as_json(self.prompt)


def rights(answered: Sequence[AnsweredRow]) -> dict[str, bool]:
    """Return for each answered question whether its answer is right."""
    return {row.key: row.matches for row in answered}


def equal_answers(one: str, other: str) -> bool:
    """Return whether the texts of two answers mean the same."""
    return same_answer(*(ThinkResponse("", (), text, finished=True, balanced=True) for text in (one, other)))


def same_answer(written: ThinkResponse, reference: ThinkResponse) -> bool:
    """Return whether a response is finished and has the reference's answer.

    If both answers have a \\boxed{}, the last boxes are compared, else the whole answers. The amount of white space
    does not matter; in a box white space counts only between two letters or digits. Equal values in different notation
    do not match, and an empty answer or box matches nothing.
    """
    if not written.finished:
        return False
    ours, theirs = last_boxed(written.answer), last_boxed(reference.answer)
    if ours is not None and theirs is not None:
        return bool(ours.strip()) and _compact(ours) == _compact(theirs)
    return bool(written.answer.strip()) and written.answer.split() == reference.answer.split()


def _compact(box: str) -> str:
    """Return a box without white space that means nothing: {1 2} differs from {12}, and {x = 1} does not from {x=1}."""
    return re.sub(r"(?<!\w) | (?!\w)", "", " ".join(box.split()))


def last_boxed(text: str) -> str | None:
    """Return the content of the last \\boxed{} that is closed, with any nested braces; None if there is none."""
    found, start = None, text.find(BOX)
    while start >= 0:
        begin = end = start + len(BOX)
        depth = 1
        while depth and end < len(text):
            if text[end] == "\\":
                end += 1  # an escaped brace does not count
            else:
                depth += (text[end] == "{") - (text[end] == "}")
            end += 1
        if not depth:
            found = text[begin : end - 1]
        start = text.find(BOX, begin if depth else end)
    return found


def think_scores(answered: Sequence[AnsweredRow]) -> dict[str, float]:
    """Return scores of answered rows; empty for no rows.

    answered: number of different questions; answered_rows: number of rows, if some ask the same; think_format,
    finished, answer_match: ratios from 0 to 1 of well-formed, finished and right responses; thoughts: mean number of
    thoughts. With several groups also answered and answer_match by group.
    """
    if not answered:
        return {}

    def match_ratio(rows: Sequence[AnsweredRow]) -> float:
        return sum(row.matches for row in rows) / len(rows)

    rows = sum(row.rows for row in answered)
    scores = {
        "answered": float(len(answered)),
        **({"answered_rows": float(rows)} if rows > len(answered) else {}),
        "think_format": sum(row.written.well_formed for row in answered) / len(answered),
        "finished": sum(row.written.finished for row in answered) / len(answered),
        "thoughts": sum(len(row.written.thoughts) for row in answered) / len(answered),
        "answer_match": match_ratio(answered),
    }
    groups = sorted({row.group for row in answered})
    if len(groups) > 1:
        for group in groups:
            mine = [row for row in answered if row.group == group]
            scores |= {f"answered/{group}": float(len(mine)), f"answer_match/{group}": match_ratio(mine)}
    return scores
