from fractions import Fraction

import pytest

from lightning_modules.judge.quantity import find_quantity, same_quantity


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1,234,567.5", Fraction(2469135, 2)),
        ("12 345", 12345),
        (".5", Fraction(1, 2)),
        ("- 3", -3),
        ("-$3", -3),
        ("1e3", 1000),
        ("1.5*10^-3", Fraction(3, 2000)),
        ("2^10", 1024),
        ("1 1/2", Fraction(3, 2)),
        ("-3/4", Fraction(-3, 4)),
        ("0.(3)", Fraction(1, 3)),
        ("0.1(6)", Fraction(1, 6)),
        ("3.2 million", 3_200_000),
        ("seven", 7),
        ("twenty-one", 21),
        ("two hundred", 200),
        ("50%", Fraction(1, 2)),
        ("1 dozen", 12),
        ("about 12", 12),
        ("007", 7),
        ("12.", 12),
    ],
)
def test_a_number_is_read_exactly(text: str, value: Fraction) -> None:
    quantity = find_quantity(text)
    assert quantity is not None
    assert quantity.value == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "1,2",
        "1/0",
        "7th",
        "12 is even",
        "1.2.3",
        "one hundred twenty",
        "3xy",
        "5x",
        "10^1000000",
        "9" * 5000,
        "7-8",
        "1,0000",
        "12 or 13",
    ],
)
def test_other_texts_are_no_numbers(text: str) -> None:
    assert find_quantity(text) is None


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("1/3", "0.333", True),
        ("1/3", "0.33", False),
        ("1/3", "0.334", False),
        ("0.3333", "0.333", False),
        ("1/8", "0.13", False),
        ("2/3", "66.7%", True),
        ("50%", "0.5", True),
        ("50%", "50", True),
        ("0.5", "0.5%", False),
        ("1%", "1", False),
        ("50%", "50 apples", False),
        ("$18", "18", True),
        ("$18", "€18", False),
        ("$0.25", "25 cents", True),
        ("12 cm", "0.12 m", True),
        ("12 cm", "12", True),
        ("12 cm", "12 m", False),
        ("12 cm", "12 apples", False),
        ("12 apples", "12 apples left", True),
        ("12 apples", "12 pears", False),
        ("60 km/h", "60 kilometers per hour", True),
        ("72 km/h", "20 m/s", True),
        ("25 m^2", "25 square meters", True),
        ("25 m^2", "25 m", False),
        ("30°C", "30°F", False),
        ("30°C", "30 degrees", True),
        ("£5", "5 pounds", True),
        ("5 lb", "5 pounds", True),
        ("5 kg", "5 pounds", False),
        ("100000000000000000001", "100000000000000000002", False),
        ("0.1", "0.10000000000000001", False),
    ],
)
def test_quantities_are_equal_if_value_and_unit_are(one: str, other: str, same: bool) -> None:
    ours, theirs = find_quantity(one), find_quantity(other)
    assert ours is not None
    assert theirs is not None
    assert same_quantity(ours, theirs) == same_quantity(theirs, ours) == same
