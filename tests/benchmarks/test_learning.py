"""benchmarks/learning: the recipes, their rows, the runs and the report. One test trains a tiny model."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks.learning import __main__ as command
from benchmarks.learning import recipes, runs
from benchmarks.learning.curves import over_seeds, plainly, verdict
from benchmarks.learning.recipes import COMMON, EMBEDDED, KNOBS, LITERAL, STRONG, Recipe, default_scale, flat
from benchmarks.learning.report import conclusions, curve_table, knob_table, write
from benchmarks.learning.rows import split_rows
from datamodules.rows import builtin
from errors import UserError
from tests.conftest import ROOT

SCALE = default_scale(EMBEDDED)


def run_of(losses: dict[int, float], match: float = 0.0) -> dict[str, Any]:
    """A result of runs.read_run."""
    machine = {"gpus": [], "cpus": 2}
    return {
        "curve": {step: {"loss": loss, "answer_match": match} for step, loss in losses.items()},
        "environment": {"python": "3.11", "versions": {"torch": "2"}, "machine": machine, "git": {"commit": None}},
    }


# Recipes


def test_the_knobs_together_are_the_strong_recipe() -> None:
    found = recipes.recipes(rate_factor=1)
    assert [recipe.name for recipe in found] == ["literal", *(f"+ {name}" for name in KNOBS), "strong"]
    together = {key: value for recipe in found[1:-1] for key, value in recipe.settings.items()}
    strong = {key: value for key, value in flat(STRONG).items() if key not in COMMON}
    assert together | {"data.max_length": 4096} == strong  # the rows are chosen by their length instead
    assert [recipe.name for recipe in found if recipe.long] == ["+ length", "strong"]
    literal = flat(LITERAL)
    assert all(literal.get(key) != value for key, value in together.items()), "a knob that changes nothing"


def test_a_new_setting_of_the_strong_recipe_must_belong_to_a_knob(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "strong.yaml"
    other.write_text(STRONG.read_text() + "trainer: {gradient_clip_val: 0.5}\n")
    monkeypatch.setattr(recipes, "STRONG", other)
    with pytest.raises(UserError, match=r"trainer\.gradient_clip_val' belongs to no knob"):
        recipes.recipes(rate_factor=1)


def test_other_rates_are_those_of_the_recipes_times_a_factor() -> None:
    *_, literal, strong = recipes.recipes(rate_factor=30)
    assert (literal.name, literal.settings) == ("literal x30", {"model.optim.lr": 6e-4})
    assert (strong.name, strong.settings) == ("strong x30", {"model.optim.lr": 3e-3})
    assert strong.long and STRONG in strong.configs


# Rows


def test_recipes_share_the_validation_rows_and_differ_in_training_rows(tmp_path: Path) -> None:
    lines = [json.dumps({"instruction": str(k), "response": ""}) for k in range(5)]
    (tmp_path / "all.jsonl").write_text("\n".join(lines) + "\n")
    lengths = (SCALE.short, SCALE.short + 1, SCALE.short + 1, 9, 9)
    splits = ("train", "train", "val", None, "val")
    commands: list[Sequence[str]] = []

    def preview(args: Sequence[str], log: Path) -> None:
        commands.append(args)
        found = [
            {"row": k, "split": split, "input_ids": [0] * length}
            for k, (split, length) in enumerate(zip(splits, lengths, strict=True))
        ]
        Path(args[args.index("--jsonl") + 1]).write_text("\n".join(map(json.dumps, found)))

    for _ in range(2):
        counts = split_rows(tmp_path / "all.jsonl", EMBEDDED, 1, SCALE, tmp_path, preview)
        assert counts == {"short": 1, "long": 2, "val": 2}
    assert len(commands) == 1
    assert (tmp_path / "short-1.jsonl").read_text().splitlines() == [lines[k] for k in (0, 2, 4)]
    assert (tmp_path / "long-1.jsonl").read_text().splitlines() == [lines[k] for k in (0, 1, 2, 4)]


def test_missing_rows_are_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("THINKWRIGHT_REAL_ROWS", raising=False)
    assert command.main(["--out", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: --rows") and "--rows FILE.jsonl" in line


# Runs


def test_finished_runs_are_not_repeated_and_stopped_runs_continue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen, begun = [Recipe("literal"), Recipe("+ rate"), Recipe("strong")], []

    def folder(name: str) -> Path:
        (made := tmp_path / "runs" / name / "2026" / "checkpoints").mkdir(parents=True, exist_ok=True)
        (made.parent / "config.yaml").touch()
        return made.parent

    def finish(name: str) -> None:
        ends = {"before": {"loss": 2.0}, "after": {"loss": 1.0}}
        (folder(name) / "summary.json").write_text(json.dumps(ends))

    def cli(args: Sequence[str], log: Path, watch: object) -> None:
        name = args[args.index("--run.name") + 1]
        begun.append((name, args[args.index("--ckpt_path") + 1] if "--ckpt_path" in args else None))
        finish(name)

    finish("literal-1")
    stopped = folder("rate-1") / "checkpoints" / "last.ckpt"
    stopped.touch()
    monkeypatch.setattr(runs, "run_cli", cli)
    assert command.train_all(tmp_path, chosen, [1], EMBEDDED, SCALE) == 2
    assert begun == [("rate-1", str(stopped)), ("strong-1", None)]
    assert command.train_all(tmp_path, chosen, [1], EMBEDDED, SCALE) == 0


def test_the_error_of_a_failed_command_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "HEAVY", [])
    with pytest.raises(UserError, match="ended with 2: error: command: 'fitt' does not exist"):
        runs.run_cli(["fitt"], tmp_path / "fit.log")


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


def test_a_second_run_of_the_command_reports_without_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(builtin.row(0, k)) + "\n" for k in range(80)))
    scale = ["--short", "90", "--long", "256", "--val-rows", "3", "--answered", "1", "--max-new-tokens", "8"]
    given = ["--rows", str(rows), "--out", str(tmp_path / "out"), "--recipes", "literal", "+ length", "--seeds", "1"]
    for _ in range(2):
        assert command.main([*given, *scale, "--steps", "2", "--validations", "1"]) == 0
        said = capsys.readouterr().out
        assert "Against optimizer steps" in said and "+ length" in said
        (found,) = tmp_path.glob("out/results-*.json")
        assert len(list(tmp_path.glob("out/runs/*/*/summary.json"))) == 2
    known = json.loads(found.read_text())
    assert [list(known["runs"][name]["1"]["curve"]) for name in ("literal", "+ length")] == [["0", "2"]] * 2
    assert known["rows"]["1"]["short"] < known["rows"]["1"]["long"]
    losses = [known["runs"][name]["1"]["curve"]["0"]["loss"] for name in ("literal", "+ length")]
    assert losses[0] == losses[1], "the validation rows differ"


def test_a_folder_belongs_to_one_scale(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("{}\n")
    first = command.prepare_folder(tmp_path / "out", [rows], EMBEDDED, SCALE)
    assert command.prepare_folder(tmp_path / "out", [rows], EMBEDDED, SCALE) == first
    with pytest.raises(UserError, match="was made with base assets/tiny-qwen, not other"):
        command.prepare_folder(tmp_path / "out", [rows], "other", SCALE)
    with pytest.raises(UserError, match="does not belong to this benchmark"):
        command.prepare_folder(tmp_path, [rows], EMBEDDED, SCALE)


def test_a_curve_has_the_last_validation_of_each_step(tmp_path: Path) -> None:
    (path := tmp_path / "metrics.csv").write_text(
        "step,lr,val/loss,val/answer_match\n0,,5.0,0.0\n1,0.1,,\n2,,4.0,\n2,,3.0,0.5\n"
    )
    assert runs.read_curve(path) == {
        0: {"step": 0.0, "loss": 5.0, "answer_match": 0.0},
        2: {"step": 2.0, "loss": 3.0, "answer_match": 0.5},
    }


# Report


def test_mean_and_spread_over_seeds() -> None:
    curves = [{0: {"loss": 1.0}, 9: {"loss": 4.0}}, {0: {"loss": 3.0}}]
    found = over_seeds(curves)
    assert list(found) == [0]
    assert found[0]["loss"].mean == 2.0
    assert found[0]["loss"].spread == pytest.approx(2**0.5)
    assert over_seeds(curves[:1])[9]["loss"].spread is None


@pytest.mark.parametrize(
    ("differences", "figure", "expected"),
    [
        ([-1.0, -0.1], "loss", "better"),
        ([-1.0, 0.1], "loss", "unclear"),
        ([1.0, 0.1], "loss_end", "worse"),
        ([0.0, 0.0], "answer_match", "equal"),
        ([0.1, 0.2], "answer_match", "better"),
        ([-0.1, -0.2], "think_format", "worse"),
        ([0.0, 0.2], "think_format", "unclear"),
    ],
)
def test_a_verdict_needs_every_seed(differences: list[float], figure: str, expected: str) -> None:
    assert verdict(differences, figure) == expected


def test_the_report_says_if_strong_is_not_better() -> None:
    base = {1: {5: {"loss": 3.0, "answer_match": 0.0}}, 2: {5: {"loss": 2.0, "answer_match": 0.0}}}
    strong = {1: {5: {"loss": 2.0, "answer_match": 0.0}}, 2: {5: {"loss": 1.5, "answer_match": 0.0}}}
    assert plainly(strong, base, 5, ("strong", "literal")) == [
        "strong is better than literal with every seed in: loss (-0.750 ± 0.354).",
        "strong is NOT better than literal but equal with every seed in: answer match (+0.0 ± 0.0 %).",
    ]
    assert plainly(base, strong, 5, ("strong", "literal"))[0].startswith("strong is WORSE than literal")


def test_results_are_never_overwritten(tmp_path: Path) -> None:
    results = {
        "literal": {1: run_of({0: 9.0, 4: 8.0}), 2: run_of({0: 9.2, 4: 8.4})},
        "strong": {1: run_of({0: 9.0, 4: 5.0}, 0.5), 2: run_of({0: 9.2, 4: 5.2}, 0.5)},
    }
    curves = {name: {seed: run["curve"] for seed, run in found.items()} for name, found in results.items()}
    beside = curve_table(curves, ["literal", "strong"])
    assert beside.rows[1] == ["", "4", "8.200 ± 0.283", "5.100 ± 0.141"]
    knobs = knob_table(results)
    assert knobs.rows[1][-2:] == ["-3.100 ± 0.141", "better"]
    lines = conclusions(results)
    assert len(lines) == 1 and "answer match (+50.0 ± 0.0 %)" in lines[0]
    path = write(tmp_path, results, [beside, knobs], lines, {"command": "python -m benchmarks.learning"})
    assert json.loads(path.read_text())["over_seeds"]["strong"]["4"]["loss"]["mean"] == pytest.approx(5.1)
    assert "| | 4 | 8.200 ± 0.283 |" in path.with_suffix(".md").read_text().replace("|  |", "| |")
    for name in ("literal", "strong"):
        assert name in path.with_suffix(".md").read_text()
    before = {file: file.read_text() for file in tmp_path.iterdir()}
    path = write(tmp_path, results, [], [], {"command": "again"})
    assert all(file.read_text() == text for file, text in before.items()) and path not in before
