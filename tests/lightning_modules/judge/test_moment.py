import pytest

from lightning_modules.judge.moment import find_moment, same_moment


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("9:30", "09:30", True),
        ("9:30", "9:45", False),
        ("9:30 PM", "21:30", True),
        ("9:30 PM", "9:30", False),
        ("12:15 a.m.", "0:15", True),
        ("7 pm", "19:00", True),
        ("3:2", "6:4", True),
        ("3:2", "2:3", False),
        ("6:40", "3:20", False),
        ("10:15", "2:3", True),
        ("3 to 2", "3:2", True),
        ("4 to 5", "12 to 15", False),
        ("2024-01-05", "January 5, 2024", True),
        ("5th of January 2024", "Friday, January 5, 2024", True),
        ("12/25/2024", "2024-12-25", True),
        ("25.12.2024", "2024-12-25", True),
        ("05/02/1993", "02/05/1993", False),
        ("05/02/1993", "5/2/1993", True),
        ("January 5", "January 5, 2024", False),
    ],
)
def test_times_ratios_and_dates_are_compared_as_such(one: str, other: str, same: bool) -> None:
    ours, theirs = find_moment(one), find_moment(other)
    assert ours is not None
    assert theirs is not None
    assert same_moment(ours, theirs) == same_moment(theirs, ours) == same


@pytest.mark.parametrize("text", ["7", "1/2", "9.30", "3:", "a:b", "123/45/6", "May", "9" * 200])
def test_other_texts_are_none_of_them(text: str) -> None:
    assert find_moment(text) is None
