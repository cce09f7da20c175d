"""What the figures show."""

from collections.abc import Callable
from pathlib import Path

import pytest

from commands.run_report.charts import Chart, charts
from commands.run_report.curves import MOST
from commands.run_report.read import read_run
from lightning_modules.evaluation.statistics import wilson

MakeRun = Callable[..., Path]


def found(*folders: Path) -> dict[str, Chart]:
    return {one.key: one for one in charts([read_run(folder) for folder in folders])}


def test_a_figure_that_no_run_has_is_left_out(make_run: MakeRun) -> None:
    assert found(make_run()).keys() == {"loss", "loss-thought", "form", "right", "rate", "lengths", "steps"}
    assert found(make_run("bare", metrics_csv=None)).keys() == {"lengths", "steps"}


def test_right_answers_have_wilsons_interval_at_each_step(make_run: MakeRun) -> None:
    (line,) = found(make_run())["right"].lines
    assert line.curve.values == [0.25, 0.9]
    assert line.intervals == [pytest.approx(tuple(wilson(10, 40))), pytest.approx(tuple(wilson(36, 40)))]


def test_ratios_without_their_number_have_no_interval(make_run: MakeRun) -> None:
    (line,) = found(make_run(metrics_csv="step,val/answer_match\n0,0.5\n"))["right"].lines
    assert line.intervals == []


def test_a_loss_that_falls_far_has_a_logarithmic_axis_and_one_that_reaches_0_has_not(make_run: MakeRun) -> None:
    assert found(make_run())["loss"].logarithmic
    assert not found(make_run("b", metrics_csv="step,train/loss\n1,4\n2,0\n"))["loss"].logarithmic


def test_answers_stand_beside_the_rows_of_the_data_as_shares(make_run: MakeRun) -> None:
    data, generated = found(make_run())["lengths"].bars
    assert (data.label, data.shares, generated.label, generated.shares) == ("data", [1.0], "generated", [1.0])
    chart = found(make_run("b"))["steps"]
    assert chart.labels == ["2"] and chart.bars[0].pale and not chart.bars[1].pale


def test_two_runs_have_a_colour_each_and_need_not_have_the_same_figures(make_run: MakeRun) -> None:
    both = found(make_run("a"), make_run("b", metrics_csv="step,train/loss,train/grad_norm\n7,1,2\n"))
    assert [(one.label, one.run) for one in both["loss"].lines] == [
        ("A: training", 0), ("A: validation", 0), ("B: training", 1),
    ]  # fmt: skip
    assert [one.run for one in both["gradient"].lines] == [1]


def test_a_long_run_is_thinned(make_run: MakeRun) -> None:
    lines = "".join(f"{k},{9.0 if k == 77_777 else 1.0}\n" for k in range(100_000))
    (line,) = found(make_run(metrics_csv=f"step,train/loss\n{lines}"))["loss"].lines
    assert len(line.curve.steps) <= MOST and 9.0 in line.curve.values and line.curve.steps[-1] == 99_999


def test_the_description_says_in_words_what_is_seen(make_run: MakeRun) -> None:
    text = found(make_run())["right"].description()
    assert "right: from 0.25 at step 0 to 0.9 at step 20" in text and "95 % interval 0.7" in text
    assert "data: 2: 100.0%" in found(make_run("b"))["steps"].description()
