"""Figures over seeds: their mean and spread, and the difference to another arm, seed by seed."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lightning_modules.evaluation.comparison import Comparison, compare

Results = Mapping[int, Mapping[str, Any]]  # seed -> result of Planned.read, of one arm
FIGURES = {
    "loss": "loss", "loss_thought": "thought", "loss_tag_open": "opening tag", "loss_tag_close": "closing tag",
    "loss_answer": "answer", "loss_end": "end",
}  # fmt: skip
Verdict = Literal["better", "worse", "equal", "unclear", "one seed"]


@dataclass(frozen=True)
class Value:
    """A figure over seeds. `spread`: the sample standard deviation, None for a single seed."""

    mean: float
    spread: float | None

    def shown(self, digits: int = 3, sign: bool = False) -> str:
        text = f"{self.mean:{'+' if sign else ''}.{digits}f}"
        return text if self.spread is None else f"{text} ± {self.spread:.{digits}f}"


def value(values: Sequence[float]) -> Value:
    return Value(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None)


def at_end(arm: Results, figure: str) -> dict[int, float]:
    """Return the figure of the last validation, by seed."""
    return {seed: run["curve"][max(run["curve"])][figure] for seed, run in arm.items()}


def differences(arm: Results, base: Results, figure: str) -> list[float]:
    """Return the difference of a loss to the first arm's after training, for each seed that both have."""
    ours, theirs = at_end(arm, figure), at_end(base, figure)
    return [ours[seed] - theirs[seed] for seed in sorted(set(ours) & set(theirs))]


def verdict(found: Sequence[float]) -> Verdict:
    """Return better or worse only if that is so for each of several seeds. Lower is better."""
    if all(one == 0 for one in found):
        return "equal"
    if len(found) == 1:
        return "one seed"
    if all(one < 0 for one in found):
        return "better"
    return "worse" if all(one > 0 for one in found) else "unclear"


def verdicts_of(arm: Results, seeds: Sequence[int]) -> dict[str, list[bool]]:
    """Return for each question whether the answers of these seeds are right. A question is one cluster."""
    asked = [arm[seed]["answers"] for seed in seeds]
    return {name: [bool(one[name]["right"]) for one in asked] for name in asked[0]}


def compared(arm: Results, base: Results) -> Comparison | None:
    """Return the comparison of right answers, over the seeds that both have."""
    seeds = sorted(set(arm) & set(base))
    return compare(verdicts_of(base, seeds), verdicts_of(arm, seeds)) if seeds else None


def mean_of(arm: Results, key: str) -> float:
    """Return the mean of a figure over all answers of all seeds."""
    return statistics.fmean(float(one[key]) for run in arm.values() for one in run["answers"].values())
