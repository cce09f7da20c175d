import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamodules.rows.filters import Filters
from errors import UserError

ROW = {
    "difficulty": "hard", "input_quality": "good", "language": "EN", "score": 3.5, "flag": True, "nothing": None,
    "other_task_category": ["Math", "Planning"], "configs": {"temperature": 0.6}, "empty": [], "nan": float("nan"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("given", "passes"),
    [
        (None, True),
        ({}, True),
        ({"difficulty": "hard"}, True),
        ({"difficulty": ["easy", "hard"]}, True),
        ({"difficulty": "Hard"}, False),
        ({"difficulty": ["easy", None]}, False),
        ({"nothing": [None, "x"]}, True),
        ({"nothing": None}, True),
        ({"nothing": "x"}, False),
        ({"absent": None}, True),
        ({"absent": ["x"]}, False),
        ({"other_task_category": "Planning"}, True),
        ({"other_task_category": ["Editing", "Math"]}, True),
        ({"other_task_category": ["Editing"]}, False),
        ({"empty": None}, True),
        ({"empty": "x"}, False),
        ({"configs": "x"}, False),
        ({"score": {"min": 3.5}}, True),
        ({"score": {"max": 3.5}}, True),
        ({"score": {"min": 3, "max": 3.4}}, False),
        ({"score": 3.5}, True),
        ({"flag": True}, True),
        ({"flag": 1}, False),
        ({"flag": {"min": 0}}, False),
        ({"nan": {"min": 0}}, False),
        ({"nothing": {"min": 0}}, False),
        ({"difficulty": {"min": 0}}, False),
        ({"difficulty": "hard", "language": "DE"}, False),
        ({"tokens": {"min": 9}, "steps": 2}, True),
    ],
    ids=str,
)
def test_conditions_on_columns(given: dict[str, Any] | None, passes: bool) -> None:
    """Plain values, lists, null and ranges. A value matches only a value of its type."""
    assert (Filters(given).of_row(ROW) is None) == passes


@pytest.mark.parametrize(
    ("asked", "value", "reason"),
    [
        ([0], "0", "the column holds texts, the filter asks for numbers"),
        (["0"], 0, "the column holds numbers, the filter asks for texts"),
        ({"min": 1}, "3", "the column holds texts, the filter asks for numbers"),
        ([1], True, "the column holds true or false, the filter asks for numbers"),
        ([True, None], "true", "the column holds texts, the filter asks for true or false"),
        ([1, "b"], "a", None),
        ([1], None, None),
        ([None], "a", None),
        ([1], ["1", "2"], "the column holds texts, the filter asks for numbers"),
    ],
)
def test_the_reason_says_that_the_values_are_of_another_kind(asked: Any, value: Any, reason: str | None) -> None:
    expected = "data.filters.level is not met" + (f": {reason}" if reason else "")
    assert Filters({"level": asked}).of_row({"level": value}) == expected


def test_the_reason_names_the_first_condition_not_met() -> None:
    filters = Filters({"language": "EN", "difficulty": "easy", "tokens": {"max": 10}, "steps": [1, 2]})
    assert filters.of_row(ROW) == "data.filters.difficulty is not met"
    assert filters.of_size(11, 3) == "data.filters.tokens is not met"
    assert filters.of_size(10, 3) == "data.filters.steps is not met"
    assert filters.of_size(10, 2) is None


@given(st.integers(), st.integers(), st.integers())
def test_a_range_includes_both_its_ends(low: int, high: int, value: int) -> None:
    low, high = sorted((low, high))
    filters = Filters({"n": {"min": low, "max": high}, "tokens": {"min": low, "max": high}})
    assert (filters.of_row({"n": value}) is None) == (low <= value <= high)
    assert (filters.of_size(value, 0) is None) == (low <= value <= high)


@given(st.lists(st.none() | st.text() | st.integers() | st.booleans(), min_size=1), st.data())
def test_a_list_keeps_exactly_its_values(values: list[Any], data: st.DataObject) -> None:
    filters = pickle.loads(pickle.dumps(Filters({"x": values})))  # as in worker processes
    assert filters.of_row({"x": data.draw(st.sampled_from(values))}) is None
    reason = filters.of_row({"x": "".join(map(str, values)) + "!"})
    assert reason is not None and reason.startswith("data.filters.x is not met")


def test_missing_columns_are_named_beside_the_present_ones() -> None:
    Filters({"difficulty": "hard", "tokens": {"min": 1}, "steps": 1}).check(["difficulty"])
    with pytest.raises(UserError) as caught:
        Filters({"dificulty": "hard", "colour": "red", "language": "EN"}).check(["difficulty", "language"])
    assert str(caught.value) == (
        "data.filters: 'dificulty, colour' is not a column; the columns are difficulty, language; tokens and "
        "steps always exist. Did you mean difficulty?"
    )


@pytest.mark.parametrize(
    ("given", "key", "problem"),
    [
        (["hard"], "data.filters", "is not a mapping"),
        ({"difficulty": []}, "data.filters.difficulty", "would keep nothing"),
        ({"difficulty": [["hard"]]}, "data.filters.difficulty", "is not a single value"),
        ({"score": [{"min": 1}]}, "data.filters.score", "is not a single value"),
        ({"score": {}}, "data.filters.score", "is not an end of a range"),
        ({"score": {"mni": 1, "max": 2}}, "data.filters.score", "'mni' is not an end of a range"),
        ({"score": {"min": 3, "max": 2}}, "data.filters.score", "min is above max"),
        ({"score": {"min": "low"}}, "data.filters.score.min", "'low' is not a number"),
        ({"score": {"max": True}}, "data.filters.score.max", "is not a number"),
        ({"score": {"max": float("nan")}}, "data.filters.score.max", "is not a number"),
        ({"tokens": "many"}, "data.filters.tokens", "is not a whole number"),
        ({"steps": None}, "data.filters.steps", "is not a whole number"),
        ({"steps": [1, 2.5]}, "data.filters.steps", "is not a whole number"),
    ],
    ids=str,
)
def test_malformed_conditions_are_refused_by_name(given: Any, key: str, problem: str) -> None:
    with pytest.raises(UserError, match=problem) as caught:
        Filters(given)
    assert caught.value.key == key
    assert "\n" not in str(caught.value)
