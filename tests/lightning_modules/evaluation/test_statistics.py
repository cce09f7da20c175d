"""Statistics against published values, and against slow computations of the same."""

import math
from collections import Counter
from fractions import Fraction
from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_modules.evaluation.statistics import (
    Z,
    accuracy_interval,
    clustered_difference,
    clustered_error,
    mcnemar,
    paired_difference,
    pass_at_k,
    sign_flips,
    wilson,
)

COUNTS = st.integers(0, 12)


def test_the_quantile_is_that_of_95_percent() -> None:
    assert pytest.approx(1.959963984540054) == Z


@pytest.mark.parametrize(
    ("right", "number", "low", "high"),
    [  # Newcombe 1998, Statistics in Medicine 17, 857-872, table I, method 3
        (81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718),
    ],
)  # fmt: skip
def test_wilsons_interval_has_the_published_values(right: int, number: int, low: float, high: float) -> None:
    assert wilson(right, number) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilsons_interval_holds_the_ratios_that_a_score_test_keeps(counts: tuple[int, int]) -> None:
    right, number = counts
    low, high = wilson(right, number)
    assert 0 <= low <= right / number <= high <= 1
    for end in {low, high} - {0.0, 1.0}:
        assert abs(right - number * end) / math.sqrt(number * end * (1 - end)) == pytest.approx(Z)
    mirrored = wilson(number - right, number)
    assert mirrored == pytest.approx((1 - high, 1 - low))


def test_the_clustered_error_is_the_usual_one_for_one_sample_a_question() -> None:
    values = [1.0, 0, 0, 1, 1, 1, 0, 1]
    assert clustered_error([[v] for v in values]) == pytest.approx(float(np.std(values, ddof=1)) / math.sqrt(8))
    assert clustered_error([[1.0]]) == math.inf


def test_equal_samples_of_a_question_count_once() -> None:
    once = clustered_error([[1.0], [0], [1], [1]])
    assert clustered_error([[1.0] * 6, [0] * 6, [1] * 6, [1] * 6]) == pytest.approx(once)


def test_the_interval_of_clustered_answers_is_as_wide_as_the_questions_are_few() -> None:
    answers = [True, False, True, True, False, True, True, True]
    once = accuracy_interval([[one] for one in answers])
    assert once == wilson(6, 8)
    many = accuracy_interval([[one] * 50 for one in answers])
    assert many == pytest.approx(wilson(0.75 * 7, 7))  # n - 1: the clustered error is s / sqrt(n)
    independent = accuracy_interval([[True, True, True, False]] * 7 + [[True, True, False, False]])
    assert independent.high - independent.low < once.high - once.low
    assert accuracy_interval([[True, True]] * 5) == wilson(5, 5)
    assert accuracy_interval([[True, False]]) == wilson(0.5, 1)  # one question says nothing of others


@pytest.mark.parametrize(("gained", "lost", "p"), [(0, 0, 1.0), (5, 0, 0.0625), (9, 1, 0.021484375), (3, 3, 1.0)])
def test_mcnemars_test_has_the_values_of_the_binomial_distribution(gained: int, lost: int, p: float) -> None:
    assert mcnemar(gained, lost) == mcnemar(lost, gained) == p


@given(COUNTS, COUNTS)
def test_mcnemars_test_counts_the_outcomes_that_are_as_extreme(gained: int, lost: int) -> None:
    changed = gained + lost
    extreme = sum(math.comb(changed, k) for k in range(changed + 1) if abs(2 * k - changed) >= abs(gained - lost))
    assert mcnemar(gained, lost) == pytest.approx(float(Fraction(extreme, 2**changed)))


@given(st.lists(st.integers(-4, 4), max_size=9))
def test_sign_flips_are_all_ways_to_give_the_differences_signs(differences: list[int]) -> None:
    sums = Counter(
        sum(sign * one for sign, one in zip(signs, differences, strict=True))
        for signs in product((1, -1), repeat=len(differences))
    )
    extreme = sum(number for total, number in sums.items() if abs(total) >= abs(sum(differences)))
    assert sign_flips(differences) == pytest.approx(extreme / 2 ** len(differences))


@given(COUNTS, COUNTS, COUNTS)
def test_sign_flips_of_single_answers_are_mcnemars_test(gained: int, lost: int, equal: int) -> None:
    assert sign_flips([1] * gained + [-1] * lost + [0] * equal) == pytest.approx(mcnemar(gained, lost))


def test_many_sign_flips_take_no_time_and_lose_nothing() -> None:
    assert sign_flips([8] * 60 + [-8] * 40) == pytest.approx(mcnemar(60, 40))
    assert sign_flips([1] * 1_000) == pytest.approx(2 / 2**1_000)


@pytest.mark.parametrize(
    ("gained", "lost", "number", "interval"),
    [
        (1, 7, 21, (-0.517, -0.026)),  # Tango's interval for Fagerland's airway data: R's PropCIs::scoreci.mp(7, 1, 21)
        (0, 0, 44, (-(Z**2) / (44 + Z**2), Z**2 / (44 + Z**2))),  # by hand: number² d² = z² number |d| (1 - |d|)
    ],
)
def test_tangos_interval_has_the_known_values(
    gained: int, lost: int, number: int, interval: tuple[float, float]
) -> None:
    assert paired_difference(gained, lost, number) == pytest.approx(interval, abs=5e-4)


def likeliest(gained: int, lost: int, number: int, difference: float) -> float:
    """The chance of "lost" that makes the counts likeliest if the difference is given, by trying many."""
    chances = np.linspace(max(0.0, -difference), (1 - difference) / 2, 200_001)[1:-1]
    same = np.clip(1 - 2 * chances - difference, 1e-300, None)
    likelihood = gained * np.log(np.clip(chances + difference, 1e-300, None)) + lost * np.log(
        np.clip(chances, 1e-300, None)
    )
    return float(chances[np.argmax(likelihood + (number - gained - lost) * np.log(same))])


@pytest.mark.parametrize(("gained", "lost", "number"), [(12, 5, 60), (0, 4, 20), (40, 2, 50), (3, 3, 9)])
def test_the_ends_of_tangos_interval_are_where_its_test_rejects(gained: int, lost: int, number: int) -> None:
    low, high = paired_difference(gained, lost, number)
    assert low < (gained - lost) / number < high
    for end in (low, high):
        chance = likeliest(gained, lost, number, end)
        variance = number * (2 * chance + end - end * end)
        assert abs(gained - lost - number * end) / math.sqrt(variance) == pytest.approx(Z, rel=2e-3)


@given(COUNTS, COUNTS, st.integers(1, 30))
def test_an_exchange_of_the_models_turns_the_interval_round(gained: int, lost: int, more: int) -> None:
    number = gained + lost + more
    low, high = paired_difference(gained, lost, number)
    assert -1 <= low <= (gained - lost) / number <= high <= 1
    assert paired_difference(lost, gained, number) == pytest.approx((-high, -low), abs=1e-9)


def test_the_interval_of_clustered_differences_is_normal() -> None:
    differences = [0.25, 0.0, 0.5, -0.25, 0.25, 0.0]
    error = float(np.std(differences, ddof=1)) / math.sqrt(6)
    assert clustered_difference(differences) == pytest.approx((0.125 - Z * error, 0.125 + Z * error))
    assert clustered_difference([0.5]) == (-1.0, 1.0)


@given(st.integers(1, 8).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n))))
def test_pass_at_k_is_the_ratio_of_choices_of_k_samples_with_a_right_one(counts: tuple[int, int, int]) -> None:
    samples, right, k = counts
    choices = list(combinations([True] * right + [False] * (samples - right), k))
    assert pass_at_k(samples, right, k) == pytest.approx(sum(map(any, choices)) / len(choices))
