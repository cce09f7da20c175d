"""Intervals and tests for right and wrong answers, of one model and of two models on the same questions."""

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

LEVEL = 0.95  # of all intervals
Z = NormalDist().inv_cdf((1 + LEVEL) / 2)
HALVINGS = 60  # of an interval of length 2, down to rounding


class Interval(NamedTuple):
    """An interval that holds the true value in 95 of 100 evaluations."""

    low: float
    high: float

    def percent(self) -> str:
        """Return the interval of a ratio as a table shows it."""
        return f"{100 * self.low:.1f} to {100 * self.high:.1f} %"


def wilson(right: float, number: float) -> Interval:
    """Return the interval of a ratio `right / number`, which lies in [0, 1] and has a width also at 0 and 1.

    Wilson 1927, "Probable inference, the law of succession, and statistical inference", JASA 22, 209-212.
    """
    ratio, weight = right / number, Z * Z / number
    middle = ratio + weight / 2
    half = Z * math.sqrt(ratio * (1 - ratio) / number + weight / number / 4)
    low, high = ((middle + sign * half) / (1 + weight) for sign in (-1, 1))
    return Interval(low if right > 0 else 0.0, high if right < number else 1.0)  # without rounding at the ends


def clustered_error(samples: Sequence[Sequence[float]]) -> float:
    """Return the standard error of the mean of all samples; the samples of one question are a cluster.

    With one sample each it is the usual one, the root of s² / n. Infinite for one question.
    Miller 2024, "Adding error bars to evals", arXiv 2411.00640, with the factor n / (n - 1) for n clusters.
    """
    number, total = len(samples), sum(map(len, samples))
    if number < 2:
        return math.inf
    mean = sum(map(sum, samples)) / total
    squares = sum((sum(values) - mean * len(values)) ** 2 for values in samples)
    return math.sqrt(squares * number / (number - 1)) / total


def accuracy_interval(samples: Sequence[Sequence[bool]]) -> Interval:
    """Return the interval of the ratio of right answers, for one or several answers to each question.

    With one answer to each question it is Wilson's. With several it is Wilson's for the number of independent answers
    that have the clustered error: Franco, Little, Louis and Slud 2019, "Comparative study of confidence intervals for
    proportions in complex sample surveys", J. Survey Statistics and Methodology 7, 334-364.
    """
    right, total = sum(map(sum, samples)), sum(map(len, samples))
    if total == len(samples):
        return wilson(right, total)
    ratio, error = right / total, clustered_error(samples)
    effective = ratio * (1 - ratio) / error**2 if error else len(samples)  # all right, or all questions alike
    effective = min(max(effective, 1.0), total)
    return wilson(ratio * effective, effective)


def mcnemar(gained: int, lost: int) -> float:
    """Return the p-value of McNemar's exact test, two-sided: could both models be equally good?

    gained, lost: questions that only the one or only the other model answers right; the others say nothing
    McNemar 1947, Psychometrika 12, 153-157; exact by the binomial distribution with 1/2.
    """
    changed = gained + lost
    below = sum(math.comb(changed, k) for k in range(min(gained, lost) + 1))
    return min(1.0, float(2 * below / 2**changed))


def sign_flips(differences: Sequence[int]) -> float:
    """Return the p-value of the exact paired test that flips signs, two-sided.

    differences: for each question, the right answers of one model minus the right answers of the other. Both models
                 have the same number of samples
    With differences of -1, 0 and 1 it is McNemar's test. Fisher 1935, "The design of experiments", section 21.
    """
    sizes = [abs(one) for one in differences if one]
    reach = sum(sizes)
    chances = np.zeros(2 * reach + 1)
    chances[reach] = 1.0  # of each sum, from -reach to reach
    for size in sizes:
        moved = np.zeros_like(chances)
        moved[size:] += chances[:-size] / 2
        moved[:-size] += chances[size:] / 2
        chances = moved
    sums = np.arange(-reach, reach + 1)
    return min(1.0, float(chances[np.abs(sums) >= abs(sum(differences))].sum()))


def paired_difference(gained: int, lost: int, number: int) -> Interval:
    """Return the interval of the difference (gained - lost) / number between two ratios on the same questions.

    The score interval of Tango 1998, "Equivalence test and confidence interval for the difference in proportions for
    the paired-sample design", Statistics in Medicine 17, 891-908: all differences that its test does not reject.
    """
    at = (gained - lost) / number
    low = _border(lambda value: _tango(gained, lost, number, value) > Z, -1.0, at)
    high = _border(lambda value: _tango(gained, lost, number, value) >= -Z, at, 1.0)
    return Interval(low, high)


def _tango(gained: int, lost: int, number: int, difference: float) -> float:
    """Tango's statistic, about normal if `difference` is the true one. It falls with the difference."""
    excess = gained - lost - number * difference
    if excess == 0:
        return 0.0
    # The likeliest chance of "lost" under this difference, by the larger root of a quadratic equation
    b = (2 * number - gained + lost) * difference - gained - lost
    c = -lost * difference * (1 - difference)
    chance = (math.sqrt(max(0.0, b * b - 8 * number * c)) - b) / (4 * number)
    variance = number * (2 * chance + difference * (1 - difference))
    return excess / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, excess)


def _border(holds: Callable[[float], bool], low: float, high: float) -> float:
    """The place in [low, high] up to which a condition holds."""
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return (low + high) / 2


def clustered_difference(differences: Sequence[float]) -> Interval:
    """Return the interval of the mean of differences between two models, one difference for each question.

    Normal, by the error of Miller 2024 for paired differences, cut at -1 and 1; for several samples a question.
    """
    mean, error = sum(differences) / len(differences), clustered_error([[one] for one in differences])
    return Interval(max(-1.0, mean - Z * error), min(1.0, mean + Z * error))


def pass_at_k(samples: int, right: int, k: int) -> float:
    """Return the chance that at least one of k samples is right, without bias. `right` of the `samples` were right.

    Chen et al. 2021, "Evaluating large language models trained on code", arXiv 2107.03374, in the product form.
    """
    if samples - right < k:
        return 1.0
    return 1.0 - math.prod(1 - k / n for n in range(samples - right + 1, samples + 1))
