"""Two models on the same questions: what one gained and lost beside the other, and whether chance could do that."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from lightning_modules.evaluation.statistics import (
    Interval,
    clustered_difference,
    mcnemar,
    paired_difference,
    sign_flips,
)

Verdicts = Mapping[str, Sequence[bool]]  # of each question, whether its answers are right: one, or several samples


class Comparison(NamedTuple):
    """The questions by their outcome, and the difference of the ratios of right answers."""

    gained: list[str]  # answered right by the second model only
    lost: list[str]  # by the first one only
    both: list[str]
    none: list[str]
    difference: float  # from -1 to 1; above 0 if the second model is better
    interval: Interval
    p_value: float
    test: str

    def lines(self) -> list[str]:
        """Return the comparison in two lines."""
        low, high = (f"{100 * end:+.1f}" for end in self.interval)
        names = ("gained", "lost", "both", "none")
        counts = {name: len(getattr(self, name)) for name in names}
        return [
            f"right answers on the same {sum(counts.values()):,} questions: {100 * self.difference:+.1f} points "
            f"(95 % interval {low} to {high}; {self.test}: p {_shown(self.p_value)})",
            ", ".join(f"{count:,} {name}" for name, count in counts.items()),
        ]


def compare(first: Verdicts, second: Verdicts) -> Comparison | None:
    """Return the comparison of two models on the questions that both answered; None if there are none.

    A question with several samples counts as right in the table if more than half of them are right. The difference,
    its interval and its test use every sample.
    """
    asked = [one for one in first if one in second]
    if not asked:
        return None
    outcomes: dict[tuple[bool, bool], list[str]] = {}
    for one in asked:
        outcomes.setdefault((_mostly(first[one]), _mostly(second[one])), []).append(one)
    gained, lost, both, none = (
        outcomes.get(key, []) for key in ((False, True), (True, False), (True, True), (False, False))
    )
    if all(len(first[one]) == len(second[one]) == 1 for one in asked):
        difference = (len(gained) - len(lost)) / len(asked)
        interval = paired_difference(len(gained), len(lost), len(asked))
        p_value, test = mcnemar(len(gained), len(lost)), "exact McNemar test"
    else:
        # Whole numbers for the exact test, also if the models have unequal numbers of samples
        counts = [
            (sum(second[one]) * len(first[one]) - sum(first[one]) * len(second[one]), len(first[one]), len(second[one]))
            for one in asked
        ]
        each = [count / (ours * theirs) for count, ours, theirs in counts]
        difference, interval = sum(each) / len(each), clustered_difference(each)
        p_value, test = sign_flips([count for count, _, _ in counts]), "exact paired sign-flip test"
    return Comparison(gained, lost, both, none, difference, interval, p_value, test)


def _mostly(right: Sequence[bool]) -> bool:
    return 2 * sum(right) > len(right)


def _shown(p_value: float) -> str:
    return f"{p_value:.3f}" if p_value >= 0.001 else f"{p_value:.0e}" if p_value > 1e-99 else "< 1e-99"
