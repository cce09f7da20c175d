"""A run's folder as plain data: nothing in it changes, and each part that is missing is one line."""

import fcntl
from collections.abc import Callable
from pathlib import Path

import pytest

from commands.run_report.read import read_run
from errors import UserError

MakeRun = Callable[..., Path]
OBJECT = '{"data": 3, "before": [1]}\n'
FILES = ("metrics.csv", "summary.json", "samples.md", "config.yaml", "environment.json")


def test_a_whole_run_lacks_nothing(make_run: MakeRun) -> None:
    run = read_run(make_run())
    assert run.missing == [] and run.name == "demo/run" and run.state == "ended, after step 20"
    assert run.settings["model"] == {"lora": {"rank": 8}} and len(run.samples) == 2 and len(run.evaluations) == 2
    assert run.response_tokens == 60 and sum(run.lengths) == sum(run.steps) == 30


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("text", [None, "", "\0\udcff{[,\n\n", "[1, 2]\n", OBJECT])
def test_a_missing_or_damaged_file_is_one_line_and_stays_as_it_is(
    name: str, text: str | None, make_run: MakeRun
) -> None:
    folder = make_run(**{name.replace(".", "_"): text})
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    run = read_run(folder)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    told = [line for line in run.missing if name.split(".")[0] in line]
    is_whole = (name, text) in {("samples.md", ""), ("config.yaml", OBJECT), ("environment.json", OBJECT)}
    assert len(told) == (0 if is_whole else 1), run.missing
    assert all("\n" not in line for line in run.missing)


def test_a_run_says_whether_it_is_training_was_killed_or_has_ended(make_run: MakeRun) -> None:
    folder = make_run(summary_json='{"before": {"loss": 4.5}}')
    assert read_run(folder).state == "was stopped or killed before its last measurement, after step 20"
    with (folder / "run.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert read_run(folder).state == "is still training, at step 20"


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name, problem in (("gone", "does not exist"), ("file", "is not a folder"), (".", "is not a run")):
        with pytest.raises(UserError, match=problem):
            read_run(tmp_path / name)


def test_the_newest_evaluation_is_that_of_the_trained_model(make_run: MakeRun) -> None:
    newest = read_run(make_run()).newest()
    assert newest is not None and newest.name == "t-2"
