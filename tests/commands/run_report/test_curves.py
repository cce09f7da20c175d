"""metrics.csv as curves: files that are whole, being written, damaged or long."""

import math

from hypothesis import given
from hypothesis import strategies as st

from commands.run_report.curves import Curve, read_curves, thinned


def test_a_curve_has_the_steps_at_which_its_figure_was_written() -> None:
    curves, faults = read_curves("step,a,b\n0,1.5,\n10,,2\n20,3,4\n")
    assert curves == {"a": Curve([0, 20], [1.5, 3.0]), "b": Curve([10, 20], [2.0, 4.0])}
    assert faults == []


def test_a_line_that_is_being_written_is_left_out_without_a_word() -> None:
    assert read_curves("step,a\n1,2\n2,3.14") == ({"a": Curve([1], [2.0])}, [])


def test_a_resumed_run_has_the_later_figures_of_a_step() -> None:
    curves, _ = read_curves("step,a\n1,1\n2,2\n3,3\n2,20\n")
    assert curves["a"] == Curve([1, 2, 3], [1.0, 20.0, 3.0])


def test_what_is_left_out_is_counted() -> None:
    curves, faults = read_curves("step,a\n1,1\nx,2\n2\n-1,5\n3,nan\n4,inf\n5,word\n6,1e300\n7,2\n")
    assert curves["a"] == Curve([1, 7], [1.0, 2.0])
    assert faults == [
        "metrics.csv has 3 damaged lines, which are left out",
        "metrics.csv has 4 values that are no finite numbers; they are gaps",
    ]


def test_a_file_without_steps_is_named_and_an_empty_one_too() -> None:
    assert read_curves("a,b\n1,2\n")[1] == ["metrics.csv is damaged: it has no column of steps"]
    assert read_curves("")[1] == ["metrics.csv is empty"]


@given(st.text(alphabet='step,a1.e-\n"\0\r x', max_size=80))
def test_no_text_is_an_error(text: str) -> None:
    for head in ("", "step,a\n"):
        curves, _ = read_curves(head + text)
        for curve in curves.values():
            assert sorted(set(curve.steps)) == curve.steps and all(map(math.isfinite, curve.values))


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=400), st.integers(4, 50))
def test_a_thinned_curve_keeps_its_ends_and_its_extremes(values: list[float], most: int) -> None:
    curve = Curve(list(range(len(values))), values)
    found = thinned(curve, most)
    assert len(found.steps) <= max(most, 4) and len(found.steps) == len(found.values)
    assert (found.steps[0], found.steps[-1]) == (0, len(values) - 1)
    assert (min(found.values), max(found.values)) == (min(values), max(values))
    assert all(values[step] == value for step, value in zip(*found, strict=True))
