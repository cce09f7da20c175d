"""Gained and lost questions, and settings that differ."""

from collections.abc import Callable
from pathlib import Path

from commands.run_report.compare_runs import SHOWN, differences, outcomes
from commands.run_report.read import read_run
from tests.commands.run_report.conftest import evaluation

MakeRun = Callable[..., Path]


def test_a_run_is_compared_with_itself_before_training_and_with_the_base(make_run: MakeRun) -> None:
    rows, asked = outcomes([read_run(make_run())])
    assert rows.lines[1] == "1 gained, 0 lost, 1 both, 1 none"
    assert asked.lines[1] == "2 gained, 1 lost, 0 both, 0 none"
    assert [one.question for one in asked.gained] == ["x", "z"] and [one.question for one in asked.lost] == ["y"]
    assert asked.gained[0][1:] == ("2", "3", "<think>a</think>2")


def test_two_runs_are_compared_on_the_questions_that_both_were_asked(make_run: MakeRun) -> None:
    first, second = make_run("a"), make_run("b")
    evaluation(second / "evaluations/t-2.jsonl", "b", {"x": True, "y": True}, "2")
    *_, asked = outcomes([read_run(first), read_run(second)])
    assert asked.lines[1] == "1 gained, 0 lost, 1 both, 0 none" and (asked.first, asked.second) == ("A", "B")
    evaluation(second / "evaluations/t-2.jsonl", "b", {"x": True}, "2", questions="others")
    assert outcomes([read_run(first), read_run(second)])[-1].title == "Validation rows after training"


def test_many_changed_questions_are_counted(make_run: MakeRun) -> None:
    folder, many = make_run(), [str(k) for k in range(SHOWN + 5)]
    evaluation(folder / "evaluations/t-base-1.jsonl", "none", dict.fromkeys(many, False), "3")
    evaluation(folder / "evaluations/t-2.jsonl", "abc", dict.fromkeys(many, True), "2")
    asked = outcomes([read_run(folder)])[-1]
    assert len(asked.gained) == SHOWN and asked.further == 5


def test_the_settings_that_differ_are_told_with_both_values() -> None:
    one, other = {"a": {"b": 1, "c": [2]}, "d": None}, {"a": {"b": 1, "c": [3]}, "e": {}}
    assert differences(one, other) == [("a.c", "[2]", "[3]"), ("d", "None", "–"), ("e", "–", "{}")]
