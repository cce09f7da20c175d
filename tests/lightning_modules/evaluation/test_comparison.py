import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_modules.evaluation.comparison import compare
from lightning_modules.evaluation.statistics import mcnemar, paired_difference

VERDICTS = st.dictionaries(st.sampled_from("abcdefgh"), st.booleans().map(lambda right: [right]), max_size=8)


def test_each_question_that_both_answered_has_one_of_four_outcomes() -> None:
    first = {"a": [False], "b": [True], "c": [True], "d": [False], "x": [True]}
    second = {"d": [False], "c": [True], "b": [False], "a": [True], "y": [True], "e": [True]} | {"e": [True]}
    found = compare(first, second)
    assert found is not None
    assert (found.gained, found.lost, found.both, found.none) == (["a"], ["b"], ["c"], ["d"])
    assert (found.difference, found.p_value, found.test) == (0.0, 1.0, "exact McNemar test")
    assert found.interval == paired_difference(1, 1, 4)
    assert compare(first, {"y": [True]}) is None


@given(VERDICTS, VERDICTS)
def test_an_exchange_exchanges_gained_and_lost(first: dict[str, list[bool]], second: dict[str, list[bool]]) -> None:
    found, turned = compare(first, second), compare(second, first)
    if found is None or turned is None:
        assert found is turned
        return
    assert sorted(found.gained) == sorted(turned.lost) and sorted(found.none) == sorted(turned.none)
    assert found.difference == -turned.difference
    assert found.p_value == turned.p_value == mcnemar(len(found.gained), len(found.lost))


def test_several_samples_are_compared_by_question() -> None:
    first = {"a": [True, False, False], "b": [True, True, True], "c": [False, False, False]}
    second = {"a": [True, True, False], "b": [True, False, False], "c": [True, True, True]}
    found = compare(first, second)
    assert found is not None
    assert (found.gained, found.lost) == (["a", "c"], ["b"])
    assert found.difference == pytest.approx((1 / 3 - 2 / 3 + 1) / 3)
    assert found.p_value == 0.75  # 3, -6 and 9: six of the eight signs give a sum of 6 or more
    assert found.test == "exact paired sign-flip test"
    half = compare({"a": [True, False]}, {"a": [True, True]})
    assert half is not None and half.gained == ["a"]  # half is not most
    unequal = compare({"a": [True]}, {"a": [True, False]})
    assert unequal is not None and unequal.difference == -0.5


def test_the_lines_have_the_difference_the_interval_the_test_and_the_counts() -> None:
    first = {str(k): [k >= 131] for k in range(200)}
    second = {str(k): [k < 198] for k in range(200)}
    found = compare(first, second)
    assert found is not None
    assert found.lines() == [
        "right answers on the same 200 questions: +64.5 points "
        "(95 % interval +57.2 to +71.0; exact McNemar test: p 2e-36)",
        "131 gained, 2 lost, 67 both, 0 none",
    ]
