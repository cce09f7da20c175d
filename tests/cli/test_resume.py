"""A run that was interrupted ends where the uninterrupted one does, to the last bit."""

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lightning_modules.checkpoint import read_checkpoint

Fit = Callable[..., int]
QUIET = ("--model.evaluation.rows", "0", "--data.train_rows", "160")  # 5 optimizer steps an epoch


def weights(run: Path) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = read_checkpoint(run / "checkpoints" / "last.ckpt")["state_dict"]
    return tensors


def losses(run: Path) -> dict[int, str]:
    """Training loss by step; of a step that was done twice, the later."""
    return {
        int(row["step"]): row["train/loss"] for row in csv.DictReader((run / "metrics.csv").open()) if row["train/loss"]
    }


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, fit: Fit) -> Path:
    root = tmp_path_factory.mktemp("whole")
    assert fit(*QUIET, "--run.root", str(root)) == 0
    (run,) = (root / "demo").iterdir()
    return run


@pytest.mark.parametrize("stop_after", [2, 5, 7], ids=lambda steps: f"after step {steps} of 10")
def test_resuming_gives_the_run_that_would_have_been(
    stop_after: int, uninterrupted: Path, in_tmp: Path, fit: Fit
) -> None:
    """In the middle of an epoch, at the border of two, and in the second."""
    # The schedule must be that of the whole run, so the stop is a crash and not a smaller max_steps
    crash = "--trainer.callbacks+=tests.cli.crash.CrashAfter", f"--trainer.callbacks.step={stop_after}"
    with pytest.raises(RuntimeError, match="crashed on purpose"):
        fit(*QUIET, *crash, "--checkpoint.every_n_steps", "1")
    (run,) = (in_tmp / "runs" / "demo").iterdir()
    assert read_checkpoint(run / "checkpoints" / "last.ckpt")["global_step"] == stop_after
    assert fit(*QUIET, "--checkpoint.every_n_steps", "1", "--ckpt_path", "last") == 0
    assert list((in_tmp / "runs" / "demo").iterdir()) == [run]  # it went on in its own folder
    assert losses(run) == losses(uninterrupted)
    mine, whole = weights(run), weights(uninterrupted)
    assert mine.keys() == whole.keys()
    assert all(torch.equal(mine[name], whole[name]) for name in whole)
    assert len(list(run.glob("config*.yaml"))) == 2


VARIANTS = {
    "dora": ("--model.lora.peft.use_dora", "true", "--model.gradient_checkpointing", "true"),
    "pissa": ("--model.lora.peft.init_lora_weights", "pissa_niter_2", "--model.dtype", "bfloat16"),
    "nf4": ("--model.quantize", "nf4"),
}


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_so_does_a_run_with_other_adapters(variant: tuple[str, ...], in_tmp: Path, fit: Fit) -> None:
    """A start that is drawn at random comes from the checkpoint, not from the seed."""
    less = (*QUIET, *variant, "--trainer.max_epochs", "1")
    assert fit(*less, "--run.name", "whole") == 0
    crash = "--trainer.callbacks+=tests.cli.crash.CrashAfter", "--trainer.callbacks.step=3"
    with pytest.raises(RuntimeError, match="crashed on purpose"):
        fit(*less, *crash, "--checkpoint.every_n_steps", "1")
    assert fit(*less, "--checkpoint.every_n_steps", "1", "--ckpt_path", "last", "--seed_everything", "5") == 0
    (whole,), (run,) = ((in_tmp / "runs" / name).iterdir() for name in ("whole", "demo"))
    assert losses(run) == losses(whole)
    mine, uninterrupted = weights(run), weights(whole)
    assert mine.keys() == uninterrupted.keys()
    assert all(torch.equal(mine[name], uninterrupted[name]) for name in mine)


@pytest.mark.parametrize("steps", [4, 5], ids=["in an epoch", "at its end"])
def test_more_steps_continue_too(steps: int, in_tmp: Path, fit: Fit) -> None:
    """The rate is level here: with a schedule, more steps would mean another one from the beginning."""
    level = (*QUIET, "--model.optim.schedule", "constant", "--model.optim.warmup_share", "0")
    assert fit(*level, "--run.name", "whole") == 0
    assert fit(*level, "--trainer.max_steps", str(steps)) == 0
    assert fit(*level, "--trainer.max_steps", "10", "--ckpt_path", "last") == 0
    (whole,), (run,) = ((in_tmp / "runs" / name).iterdir() for name in ("whole", "demo"))
    assert read_checkpoint(run / "checkpoints" / "last.ckpt")["global_step"] == 10
    assert losses(run) == losses(whole)
    assert all(torch.equal(tensor, weights(run)[name]) for name, tensor in weights(whole).items())


def test_settings_on_the_command_line_beat_those_in_the_checkpoint(in_tmp: Path, fit: Fit) -> None:
    short = ("--model.evaluation.rows", "0", "--model.optim.schedule", "constant", "--model.optim.warmup_share", "0")
    assert fit(*short, "--trainer.max_steps", "1") == 0
    changed = ("--model.optim.lr", "5e-4", "--model.optim.weight_decay", "0.25", "--model.optim.betas", "[0.8,0.9]")
    assert fit(*short, *changed, "--trainer.max_steps", "2", "--ckpt_path", "last") == 0
    (run,) = (in_tmp / "runs" / "demo").iterdir()
    rows = list(csv.DictReader((run / "metrics.csv").open()))
    assert [float(row["lr"]) for row in rows if row["lr"]][-1] == 5e-4
    group = read_checkpoint(run / "checkpoints" / "last.ckpt")["optimizer_states"][0]["param_groups"][0]
    assert (group["initial_lr"], group["weight_decay"], tuple(group["betas"])) == (5e-4, 0.25, (0.8, 0.9))


def test_more_epochs_continue_a_finished_run(in_tmp: Path, fit: Fit) -> None:
    few = ("--model.evaluation.rows", "0", "--trainer.max_epochs", "1")
    assert fit(*few) == 0
    (run,) = (in_tmp / "runs" / "demo").iterdir()
    before = (run / "metrics.csv").read_text().splitlines()[1:]
    assert fit(*few[:2], "--trainer.max_epochs", "2", "--ckpt_path", str(run)) == 0
    assert read_checkpoint(run / "checkpoints" / "last.ckpt")["global_step"] == 4
    after = (run / "metrics.csv").read_text().splitlines()[1:]
    assert after[: len(before)] == before  # nothing of the earlier log is lost
    assert len(after) > len(before)
