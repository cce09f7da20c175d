from fractions import Fraction

import pytest

from lightning_modules.judge.units import common_factors, find_unit


@pytest.mark.parametrize(
    ("one", "other", "factors"),
    [
        ("km", "m", (1000, 1)),
        ("mph", "miles/hour", (Fraction(201168, 125) / 3600,) * 2),
        ("cm^2", "square cm", (Fraction(1, 10**4),) * 2),
        ("apples left", "apple", (1, 1)),
        ("apples", "pears", None),
        ("m", "kg", None),
        ("m", "apples", None),
        ("pounds", "£", (1, 1)),
        ("pounds", "kg", (Fraction(45359237, 10**8), 1)),
        ("degrees", "°C", (1, 1)),
        ("rad", "degrees", None),
    ],
)
def test_units_have_common_factors_if_they_measure_the_same(
    one: str, other: str, factors: tuple[Fraction, Fraction] | None
) -> None:
    ours, theirs = find_unit(one), find_unit(other)
    assert ours is not None
    assert theirs is not None
    assert common_factors(ours, theirs) == factors


@pytest.mark.parametrize("text", ["is even", "apples and pears", "x", "= 12", "a b c d e f g h", "more than Bob"])
def test_a_sentence_that_goes_on_is_no_unit(text: str) -> None:
    assert find_unit(text) is None
