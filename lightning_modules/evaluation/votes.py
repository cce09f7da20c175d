"""Votes: of several answers to one question, the one that most of them give."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from lightning_modules.judge.judge import judge


class Vote(NamedTuple):
    """The result of a vote."""

    place: int | None  # of the first answer that agrees with the winner; None if no answer has a vote
    share: float  # of the winner, of all votes, from 0 to 1; answers that abstain count as votes for nothing


def same_answer(one: str, other: str) -> bool:
    """Return whether the judge takes one answer for the other."""
    return judge(one, other).right


def vote(
    answers: Sequence[str | None], same: Callable[[str, str], bool], weights: Sequence[float] | None = None
) -> Vote:
    """Return the vote of some answers. At a tie the answer that was given first wins.

    answers: None abstains: the response was cut off
    same:    whether two answers mean the same. An answer joins the first answer that means the same
    weights: of each answer, 0 or more; without them each has one vote (Wang et al. 2022, "Self-consistency improves
             chain of thought reasoning", arXiv 2203.11171). Confidence as the weight: Taubenfeld et al. 2025,
             "Confidence improves self-consistency in LLMs", arXiv 2502.06233
    """
    given = [1.0] * len(answers) if weights is None else list(weights)
    sums: dict[int, float] = {}  # place of the first answer of a meaning -> its votes
    for place, answer in enumerate(answers):
        if answer is not None:
            first = next((k for k in sums if same(answer, answers[k] or "")), place)
            sums[first] = sums.get(first, 0.0) + given[place]
    if not sums or not sum(given):
        return Vote(None, 0.0)
    winner = max(sums, key=lambda k: (sums[k], -k))
    return Vote(winner, sums[winner] / sum(given))
