"""benchmarks/learning: the rows, the studies, the jobs and the report. One test trains a tiny model."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.learning import __main__ as command
from benchmarks.learning import jobs, rows
from benchmarks.learning.curves import compared, differences, value, verdict
from benchmarks.learning.jobs import Command, run_jobs
from benchmarks.learning.picture import bars_of, first_choice, picture
from benchmarks.learning.report import answer_table, loss_table, write
from benchmarks.learning.rows import Choice, Pool, split
from benchmarks.learning.runs import CONFIG, Planned, read_curve
from benchmarks.learning.studies import STEP_TOKENS, STUDIES, Arm, Study
from datamodules.rows import builtin
from errors import UserError
from tests.conftest import ROOT


def row(question: str, answer: str) -> str:
    return json.dumps({"instruction": question, "response": f"<think>\nHm.\n</think>\n\nThe answer is ({answer})."})


def result(losses: dict[int, float], right: list[bool] | None = None) -> dict[str, Any]:
    """A result of Planned.read."""
    machine = {"gpus": [], "cpus": 2}
    names = ("loss", "loss_thought", "loss_tag_open", "loss_tag_close", "loss_answer", "loss_end")
    found: dict[str, Any] = {
        "curve": {step: dict.fromkeys(names, loss) for step, loss in losses.items()},
        "training": {"train_seconds": 10.0, "peak_memory_gb": 2.0},
        "environment": {"python": "3.11", "versions": {"torch": "2"}, "machine": machine, "git": {"commit": None}},
    }
    if right is not None:
        more = {"well_formed": True, "finished": True, "looped": False, "thoughts": 3, "tokens": 50, "reference": "(A)"}
        found["answers"] = {str(k): {"right": one, **more} for k, one in enumerate(right)}
    return found


# Studies


def test_no_two_arms_of_a_study_are_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    """An arm that sets the config's own value would compare the config with itself."""
    from cli import main

    assert main(["fit", "--config", str(CONFIG), "--print_config"]) == 0
    resolved = yaml.safe_load(capsys.readouterr().out)
    for study in STUDIES:
        keys = sorted({key for arm in study.arms for key in arm.settings})
        found = [
            str(
                [
                    study.tokens_of(arm),
                    arm.rows,
                    *(yaml.safe_load(str(arm.settings.get(key, _known(resolved, key)))) for key in keys),
                ]
            )
            for arm in study.arms
        ]
        assert len(set(found)) == len(found) == len({arm.slug for arm in study.arms}), study.name


def _known(resolved: dict[str, Any], key: str) -> Any:
    found: Any = resolved
    for part in key.split("."):
        found = found[part]
    return found


def test_arms_have_the_same_supervised_tokens_whatever_their_step() -> None:
    small, large = Arm("small", {STEP_TOKENS: 500}), Arm("large", {STEP_TOKENS: 4_000})
    study = Study("steps", "?", (small, large), tokens=40_000)
    assert [study.steps(arm, 2_000) for arm in study.arms] == [80, 10]
    assert study.steps(Arm("other"), 2_000) == 20


# Rows


def seen(split: str | None, tokens: int, number: int) -> dict[str, Any]:
    return {"row": number, "split": split, "input_ids": [0] * tokens}


def test_a_question_of_the_validation_is_not_in_the_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "VAL_ROWS", 1)
    lines = [row("one", "A"), row("one", "A"), row("two", "B"), row("three", "A"), row("four", "C"), row("two", "D"),
             row("two", "D")]  # fmt: skip
    splits = [("val", 400), ("val", 900), ("val", 400), ("train", 600), (None, 9), ("val", 900), (None, 9)]
    pool = split(lines, [seen(one, tokens, k) for k, (one, tokens) in enumerate(splits)])
    assert (pool.train, pool.val) == ([3], [0])
    assert [one["instruction"] for one in pool.test] == ["two"]
    assert "(D)" in pool.test[0]["answer"], "the answer of most rows, those that are too long to train on included"


def test_rows_of_an_arm_are_chosen_by_length_and_come_with_the_validation_rows(tmp_path: Path) -> None:
    tokens = [100, 300, 600, 900, 400, 200, 250, 350]
    pool = Pool([str(k) for k in range(8)], tokens, [0, 1, 2, 3, 5, 6, 7], [4], [])
    assert pool.choose(Choice(500)) == [0, 1, 5, 6, 7]
    assert pool.choose(Choice(1000, shortest=500)) == [2, 3]
    assert pool.choose(Choice(1000, number=2)) == [0, 1]
    assert pool.choose(Choice(1000, long_after=500)) == [0, 1, 2, 5, 6, 7]
    assert pool.write(Choice(500), tmp_path).read_text().split() == ["0", "1", "4", "5", "6", "7"]
    with pytest.raises(UserError, match="has 2 rows"):
        pool.choose(Choice(1000, shortest=500, number=3))


def test_rows_that_agree_are_those_with_the_answer_that_most_rows_of_the_question_give(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rows, "VAL_ROWS", 1)
    lines = [row("one", "A"), row("one", "B"), row("one", "B"), row("two", "C"), row("three", "A"), row("four", "A")]
    splits = ["train", "train", None, "train", "val", "val"]
    pool = split(lines, [seen(one, 100, k) for k, one in enumerate(splits)])
    assert pool.train == [0, 1, 3]
    assert pool.choose(Choice(agreeing=True)) == [1, 3]
    assert Choice(agreeing=True).slug != Choice().slug


def test_missing_rows_are_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("THINKWRIGHT_REAL_ROWS", raising=False)
    assert command.main(["--out", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: --rows") and "--rows FILE.jsonl" in line


# Jobs


def test_the_error_of_a_failed_command_is_kept_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "HEAVY", [])
    went_on = []

    def good() -> Iterator[Command]:
        yield Command(["--version"], tmp_path / "good.log")
        went_on.append(True)

    bad = iter([Command(["fitt"], tmp_path / "bad.log")])
    (error,) = run_jobs([bad, good()], at_once=2)
    assert "ended with 2: error: command: 'fitt' does not exist" in str(error) and went_on


def test_after_a_signal_to_the_group_the_command_can_save(tmp_path: Path) -> None:
    log = tmp_path / "log"
    started = [sys.executable, "-m", "tests.benchmarks.slow_to_save", str(log)]
    waiting = subprocess.Popen(started, cwd=ROOT, start_new_session=True, stderr=subprocess.PIPE, text=True)
    while not log.exists() or "begun" not in log.read_text():
        assert waiting.poll() is None
        time.sleep(0.05)
    os.killpg(waiting.pid, signal.SIGTERM)
    _, said = waiting.communicate(timeout=60)
    assert waiting.returncode == 143 and "stopped; the same command continues" in said
    assert log.read_text() == "begun\nsaved\n"


# Runs


def test_a_finished_run_has_no_command_and_a_stopped_one_continues(tmp_path: Path) -> None:
    study = Study("small", "?", (Arm("as configured"), Arm("rate 1", {"model.optim.lr": 1})), 4_000)
    pool = Pool(["{}"], [10], [0], [], [])
    (tmp_path / "rows").mkdir()
    one, other = (Planned(study, arm, 1, tmp_path) for arm in study.arms)
    for name, summary in (("small-as-configured-1", '{"after": {"loss": 1.0}}'), ("small-rate-1-1", "{}")):
        folder = tmp_path / "runs" / name / "2026"
        (folder / "checkpoints").mkdir(parents=True)
        (folder / "config.yaml").touch()
        (folder / "checkpoints" / "last.ckpt").touch()
        (folder / "summary.json").write_text(summary)
    assert one.done() and not list(one.commands("base", pool, gpu=False))
    (fit,) = other.commands("base", pool, gpu=False)
    assert fit.args[-2:] == ["--ckpt_path", str(folder / "checkpoints" / "last.ckpt")]
    assert fit.args[fit.args.index("--model.optim.lr") + 1] == "1"


def test_a_curve_has_the_last_validation_of_each_step(tmp_path: Path) -> None:
    (path := tmp_path / "metrics.csv").write_text(
        "step,lr,val/loss,val/right\n0,,5.0,0.0\n1,0.1,,\n2,,4.0,\n2,,3.0,0.5\n"
    )
    assert read_curve(path) == {
        0: {"step": 0.0, "loss": 5.0, "right": 0.0},
        2: {"step": 2.0, "loss": 3.0, "right": 0.5},
    }


def test_a_second_run_of_the_command_reports_without_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(rows, "VAL_ROWS", 3)
    arms = (Arm("as configured", {"model.dtype": "float32", "trainer.precision": "32-true"}),)
    monkeypatch.setattr(command, "STUDIES", (Study("small", "Small?", arms, 2_048, asks=True),))
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(builtin.row(0, k)) + "\n" for k in range(40)))
    given = ["--rows", str(file), "--base", "assets/tiny-qwen", "--out", str(tmp_path / "out"), "--studies", "small"]
    for _ in range(2):
        assert command.main(given) == 0
        said = capsys.readouterr().out
        assert "Small? Loss after 2,048 supervised tokens" in said and "the base" in said
        assert len(list(tmp_path.glob("out/runs/*/*/summary.json"))) == 1
    first, _ = sorted(tmp_path.glob("out/results-*.json"))
    known = json.loads(first.read_text())
    run = known["runs"]["small-as-configured-1"]
    assert list(run["curve"]) == ["0", "1"]
    assert set(run["answers"]) == set(known["base_answers"]) and len(run["answers"]) == known["questions"]


def test_a_folder_belongs_to_one_base_and_its_rows(tmp_path: Path) -> None:
    files = [tmp_path / "rows.jsonl"]
    command.prepare_folder(tmp_path / "out", files, "base")
    command.prepare_folder(tmp_path / "out", files, "base")
    with pytest.raises(UserError, match="was made with base base, not other"):
        command.prepare_folder(tmp_path / "out", files, "other")
    with pytest.raises(UserError, match="does not belong to this benchmark"):
        command.prepare_folder(tmp_path, files, "base")


# Report


def test_mean_and_spread_over_seeds() -> None:
    assert value([1.0, 3.0]).shown() == "2.000 ± 1.414"
    assert value([1.0]).shown(1, sign=True) == "+1.0"


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([-1.0, -0.1], "better"),
        ([-1.0, 0.1], "unclear"),
        ([1.0, 0.1], "worse"),
        ([0.0, 0.0], "equal"),
        ([-1.0], "one seed"),
    ],
)
def test_a_verdict_needs_every_one_of_several_seeds(found: list[float], expected: str) -> None:
    assert verdict(found) == expected


def test_arms_are_compared_seed_by_seed_and_question_by_question() -> None:
    base = {1: result({0: 9.0, 4: 3.0}, [True, False]), 2: result({0: 9.0, 4: 4.0}, [True, False])}
    other = {2: result({0: 9.0, 4: 3.5}, [True, True]), 3: result({0: 9.0, 4: 1.0}, [True, True])}
    assert differences(other, base, "loss") == [-0.5]
    found = compared(other, base)
    assert found is not None and (found.gained, found.lost) == (["1"], [])


def test_the_picture_has_two_bars_for_each_arm_and_the_line_of_the_first_choice() -> None:
    answers = result({0: 1.0}, [True, False])["answers"]
    drawn = picture([bars_of("the <base>", {0: {"answers": answers}})], first_choice(answers))
    assert drawn.count("<rect") == 3 and "the &lt;base&gt;" in drawn
    assert "always the first choice: 100 %" in drawn
    assert first_choice({"0": {"reference": "x = 7", "right": True}}) is None


def test_the_tables_are_written_and_never_overwritten(tmp_path: Path) -> None:
    arms = {
        "as configured": {1: result({0: 9.0, 4: 8.0}, [True, False]), 2: result({0: 9.2, 4: 8.4}, [False, False])},
        "other": {1: result({0: 9.0, 4: 5.0}, [True, True]), 2: result({0: 9.2, 4: 5.2}, [True, True])},
    }
    losses = loss_table("Losses", arms)
    assert losses.rows[2][-4:] == ["-3.100 ± 0.141", "better", "10 ± 0", "2.0"]
    base = result({0: 1.0}, [False, False])["answers"]
    asked = answer_table("Answers", arms, base)
    assert [line[0] for line in asked.rows[:3]] == ["the base", "as configured", "other"]
    assert asked.rows[2][5] == "100.0 %" and asked.rows[1][7].startswith("+25.0 (")
    assert [line[5] for line in asked.rows if "first choice" in line[0]] == ["100.0 %"]
    known = {"command": "python -m benchmarks.learning", "setting": "torch 2"}
    path = write(tmp_path, [losses, asked], known)
    assert "| other |" in path.with_suffix(".md").read_text()
    before = {file: file.read_text() for file in tmp_path.iterdir()}
    path = write(tmp_path, [], known)
    assert all(file.read_text() == text for file, text in before.items()) and path not in before
