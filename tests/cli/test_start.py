"""A second stage: fit begins with the weights of a run, on other rows, and needs that run no more afterwards."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from cli import main
from lightning_modules.checkpoints.checkpoint_file import read_checkpoint
from lightning_modules.checkpoints.content import CONTENT_KEY
from tests.cli.test_processes import TWO, run
from tests.cli.test_processes import fit as fit_command
from tests.conftest import ROOT

Fit = Callable[..., int]
OTHER_ROWS = ("--data.seed", "5", "--run.name", "second", "--model.evaluation.rows", "0")


def only_run(root: Path, name: str) -> Path:
    (found,) = (root / "runs" / name).iterdir()
    return found


def last(run: Path) -> dict[str, Any]:
    return read_checkpoint(run / "checkpoints" / "last.ckpt")


def figures(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "summary.json").read_text())
    return found


VARIANTS = {
    "lora": (),
    "pissa": ("--model.lora.peft.init_lora_weights", "pissa_niter_2"),
    "all weights": ("--model.lora", "null", "--model.optim.lr", "1e-4"),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_second_stage_begins_where_the_first_ended_and_needs_it_no_more(
    variant: str, in_tmp: Path, fit: Fit, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    few = ("--model.evaluation.rows", "0", "--trainer.max_epochs", "1", *VARIANTS[variant])
    assert fit(*few) == 0
    first = only_run(in_tmp, "demo")
    capsys.readouterr()
    # The same held-out rows, so the measurement at the start is that of the first stage's end
    start = ("--model.start", str(first.relative_to(in_tmp)), "--run.name", "second", "--seed_everything", "3")
    assert fit(*few, *start, "--model.optim.lr", "1e-4") == 0
    out, err = capsys.readouterr()
    second = only_run(in_tmp, "second")
    best = first / "checkpoints" / "best.ckpt"
    assert figures(second)["before"] == figures(first)["after"]
    assert out.split()[:2] == ["start", "after"]
    assert err.count(f"start: the weights of {best}, of optimizer step 2") == 2
    # The optimizer is new, and so is the schedule
    checkpoint = last(second)
    assert checkpoint["global_step"] == 2 and checkpoint["lr_schedulers"][0]["last_epoch"] == 2
    assert {float(one["step"]) for one in checkpoint["optimizer_states"][0]["state"].values()} == {2.0}
    # The parent is named everywhere, with an absolute path
    (parent,) = checkpoint[CONTENT_KEY]["parents"]
    assert (parent["path"], parent["step"]) == (str(best), 2)
    assert figures(second)["parents"] == [parent]
    assert json.loads((second / "environment.json").read_text())["parents"] == [parent]
    assert yaml.safe_load((second / "config.yaml").read_text())["model"]["start"] == str(best)
    # Without the parent's folder
    shutil.rmtree(first.parent)
    assert main(["validate"]) == 0
    assert f"{figures(second)['after']['loss']:.4f}" in capsys.readouterr().out
    assert main(["generate", "--prompt", "Solve x + 5 = 12", "--max_new_tokens", "4"]) == 0
    for more in [[], ["--adapter"]][: 1 if variant == "all weights" else 2]:
        assert main(["export", *more]) == 0
        card = (second / ("adapter" if more else "export") / "README.md").read_text()
        assert f"with the weights of `demo/{first.name}/best.ckpt`" in card
        assert str(in_tmp) not in card
    # A third stage on the adapter
    if variant == "lora":
        third = ("--run.name", "third", "--model.start", str(second / "adapter"), "--trainer.max_steps", "1")
        assert fit(*few, *third) == 0
        content = last(only_run(in_tmp, "third"))[CONTENT_KEY]
        assert [one["path"] for one in content["parents"]] == [str(second / "adapter"), str(best)]
        assert figures(only_run(in_tmp, "third"))["before"] == figures(second)["after"]


def test_a_killed_second_stage_resumes_exactly_without_its_parent(
    in_trained: Path, in_tmp: Path, fit: Fit, capsys: pytest.CaptureFixture[str]
) -> None:
    stage = (*OTHER_ROWS, "--model.lora.dropout", "0.2", "--checkpoint.every_n_train_steps", "1")
    start = ("--model.start", str(in_trained))
    assert fit(*stage, *start, "--run.name", "whole") == 0
    with pytest.raises(RuntimeError, match="crashed on purpose"):
        fit(*stage, *start, "--trainer.callbacks+=tests.cli.crash.CrashAfter", "--trainer.callbacks.step=3")
    shutil.rmtree(in_trained)
    capsys.readouterr()
    assert fit(*stage, *start, "--ckpt_path", "last") == 0  # the same command, as the hint says
    assert "model.start is not read again: the checkpoint has the weights" in capsys.readouterr().err
    whole, mine = (only_run(in_tmp, name) for name in ("whole", "second"))
    ours, theirs = last(mine), last(whole)
    assert ours["global_step"] == theirs["global_step"] == 4
    assert all(torch.equal(ours["state_dict"][name], tensor) for name, tensor in theirs["state_dict"].items())
    assert ours[CONTENT_KEY]["parents"] == theirs[CONTENT_KEY]["parents"]
    assert figures(mine)["after"] == figures(whole)["after"]
    best = str(in_trained / "checkpoints" / "best.ckpt")
    assert len(list(mine.glob("config*.yaml"))) == 2
    assert {yaml.safe_load(path.read_text())["model"]["start"] for path in mine.glob("config*.yaml")} == {best}
    # Another start than the run's own
    assert fit(*stage, "--model.start", "elsewhere", "--ckpt_path", "last") == 2
    assert "error: model.start: 'elsewhere' is not what the run of the checkpoint began" in capsys.readouterr().err
    assert main(["validate", "--model.start", str(whole)]) == 2


def test_a_step_that_is_not_finite_is_replayed_without_the_parent(
    in_trained: Path, in_tmp: Path, fit: Fit, capsys: pytest.CaptureFixture[str]
) -> None:
    breaking = ("--trainer.callbacks+=tests.cli.crash.BreakWeights", "--trainer.callbacks.step=1")
    assert fit(*OTHER_ROWS, "--model.start", str(in_trained), *breaking) == 2
    (file,) = (only_run(in_tmp, "second") / "nonfinite").iterdir()
    shutil.rmtree(in_trained)
    capsys.readouterr()
    assert main(["replay", str(file)]) == 0
    assert "not finite" in capsys.readouterr().out


def test_a_start_that_does_not_fit_is_refused_in_one_line_before_a_run_begins(
    in_trained: Path, in_tmp: Path, fit: Fit, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lightning_modules.think_tuner.load_base", lambda *_: pytest.fail("loaded"))
    (in_tmp / "cut.ckpt").write_bytes((in_trained / "checkpoints" / "last.ckpt").read_bytes()[:-50])
    start, here = ("--model.start", str(in_trained)), str(in_tmp)
    for given, words in [
        ((*start, "--model.lora.rank", "8"), "model.lora.rank: '8' differs from the checkpoint's, 32. Set model.lora"),
        ((*start, "--model.lora.target_modules", "[q_proj]"), "model.lora.target_modules: "),
        ((*start, "--model.lora", "null"), "model.lora.rank: "),
        ((*start, "--data.tags.open", "<idea>", "--data.tags.close", "</idea>"), "model.name: "),
        ((*start, "--data.new_tokens", "[<step>]"), "model.name: "),
        (("--model.start", f"{here}/nowhere"), f"model.start: '{here}/nowhere' does not exist. Give a run's folder"),
        (("--model.start", f"{here}/cut.ckpt"), f"model.start: '{here}/cut.ckpt' is damaged"),
        (("--model.start", f"{here}/runs/demo"), "Did you mean"),
        (("--model.start", ""), "model.start: '' "),
    ]:
        assert fit(*OTHER_ROWS, *given) == 2, given
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1 and words in lines[0], lines
    assert not (in_tmp / "runs" / "second").exists()


def test_rows_that_the_first_stage_may_have_seen_are_named(
    in_trained: Path, in_tmp: Path, fit: Fit, capsys: pytest.CaptureFixture[str]
) -> None:
    overlay = str(ROOT / "configs" / "recipe" / "second_stage.yaml")
    start = ("--config", overlay, "--model.start", str(in_trained), "--trainer.fast_dev_run", "1")
    for more, said in ((OTHER_ROWS, True), (OTHER_ROWS[2:], False)):
        assert fit(*more, *start) == 0
        words = "data.seed is 5, and was 0 in the run of model.start: some of the held-out rows may have been trained"
        assert (words in capsys.readouterr().err) == said


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_begin_with_the_weights_of_one(
    strategy: str, in_trained: Path, in_tmp: Path, cache: Path
) -> None:
    """The loss at the start and the losses of training are those of one process."""
    more = ["--model.start", str(in_trained), *OTHER_ROWS[:2], "--model.evaluation.rows", "0"]
    more += ["--data.cache_dir", str(cache), "--trainer.max_epochs", "1"]
    assert main(fit_command(*more, "--run.name", "alone")[2:]) == 0
    two = [*TWO[strategy], *more, "--run.name", "second", "--trainer.accumulate_grad_batches", "1"]
    code, said, _ = run(fit_command(*two), in_tmp)
    assert code == 0, said
    mine, alone = only_run(in_tmp, "second"), only_run(in_tmp, "alone")
    assert figures(mine)["before"]["loss"] == pytest.approx(figures(alone)["before"]["loss"], rel=2e-6)
    assert figures(mine)["after"]["loss"] == pytest.approx(figures(alone)["after"]["loss"], rel=1e-4)
    assert last(mine)[CONTENT_KEY]["parents"] == last(alone)[CONTENT_KEY]["parents"]
    shutil.rmtree(in_trained)
    code, said, _ = run(fit_command(*two, "--trainer.max_epochs", "2", "--ckpt_path", "last"), in_tmp)
    assert code == 0, said
    assert last(mine)["global_step"] == 4
    assert main(["validate", "--ckpt_path", str(mine), "--trainer.devices", "1", "--trainer.strategy", "auto"]) == 0
