"""Scores of answered rows: well-formed thinking, right answers beside trivial ones, failures."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from lightning_modules.evaluation.baselines import Asked, baselines, letters, options_in
from lightning_modules.evaluation.failures import Failures, failures_of, ratios
from lightning_modules.generation.think_response import ThinkResponse
from lightning_modules.judge.judge import Verdict, judge

ANSWER_LETTER, REFERENCE_LETTER = "answer_letter/", "reference_letter/"  # begin the names of their figures


@dataclass(frozen=True)
class AnsweredRow:
    """A held-out row with the model's response. It is judged once, where it is made; an unfinished one is not right."""

    row: int
    group: str
    prompt: str
    written: ThinkResponse  # by the model
    reference: ThinkResponse  # of the data
    rows: int = 1  # rows of the data that ask the same
    verdict: Verdict = field(init=False)
    failures: Failures = field(init=False)

    def __post_init__(self) -> None:
        finished = self.written.finished
        verdict = judge(self.written.answer, self.reference.answer) if finished else Verdict(False, "no answer")
        object.__setattr__(self, "verdict", verdict)
        object.__setattr__(self, "failures", failures_of(self.written))

    @property
    def key(self) -> str:
        """The question and its answer as a short name, the same in each measurement of the same rows."""
        asked = f"{self.prompt}\0{self.reference.answer}".encode("utf-8", "surrogatepass")
        return f"{self.row}-{blake2b(asked, digest_size=6).hexdigest()}"

    @property
    def matches(self) -> bool:
        return self.verdict.right

    @property
    def asked(self) -> Asked:
        """What baselines need."""
        answer = self.written.answer if self.written.finished else None
        return Asked(self.reference.answer, options_in(self.prompt), answer, self.matches)

    def as_json(self) -> dict[str, Any]:
        """Return the object that `predict` writes."""
        known = {"row": self.row, "reference": self.reference.answer.strip(), "matches": self.matches}
        known["judged_by"] = self.verdict.rung
        return known | self.written.as_json(self.prompt)


def rights(answered: Sequence[AnsweredRow]) -> dict[str, bool]:
    """Return for each answered question whether its answer is right."""
    return {row.key: row.matches for row in answered}


def think_scores(answered: Sequence[AnsweredRow]) -> dict[str, float]:
    """Return scores of answered rows; empty for no rows.

    answered: number of different questions; answered_rows: number of rows, if some ask the same; think_format,
    answer_match: ratios from 0 to 1 of well-formed and right responses; ratios of failures; thoughts: mean number of
    thoughts; ratios of baselines. With several groups also answered and answer_match by group; with right answers that
    are choices also the share of each letter, answer_letter/A beside reference_letter/A.
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
        **ratios([row.failures.marks() for row in answered]),
        "thoughts": sum(len(row.written.thoughts) for row in answered) / len(answered),
        "answer_match": match_ratio(answered),
    }
    asked = [row.asked for row in answered]
    scores |= baselines(asked)
    groups = sorted({row.group for row in answered})
    if len(groups) > 1:
        for group in groups:
            mine = [row for row in answered if row.group == group]
            scores |= {f"answered/{group}": float(len(mine)), f"answer_match/{group}": match_ratio(mine)}
    for letter, shares in letters(asked).items():
        scores |= {f"{ANSWER_LETTER}{letter}": shares.answers, f"{REFERENCE_LETTER}{letter}": shares.references}
    return scores
