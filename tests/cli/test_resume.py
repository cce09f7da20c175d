"""A run that was interrupted ends where the uninterrupted one does, to the last bit."""

import csv
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_modules.checkpoints.checkpoint_file import read_checkpoint
from lightning_modules.checkpoints.content import CONTENT_KEY
from tests.conftest import needs_bitsandbytes

Fit = Callable[..., int]
# 5 optimizer steps an epoch, each of 2 batches; dropout; a log that no step is a border of
QUIET = (
    "--model.evaluation.rows", "0", "--data.train_rows", "160", "--model.lora.dropout", "0.2",
    "--trainer.log_every_n_steps", "3",
)  # fmt: skip


def weights(run: Path) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = read_checkpoint(run / "checkpoints" / "last.ckpt")["state_dict"]
    return tensors


def logged(run: Path, name: str = "train/loss") -> dict[int, str]:
    """A figure by step; of a step that was done twice, the later."""
    return {int(row["step"]): row[name] for row in csv.DictReader((run / "metrics.csv").open()) if row[name]}


def only_run(root: Path, name: str = "demo") -> Path:
    (run,) = (root / "runs" / name).iterdir()
    return run


def same_end(mine: Path, whole: Path) -> None:
    assert logged(mine) == logged(whole)
    assert logged(mine, "train/grad_norm") == logged(whole, "train/grad_norm")
    assert logged(mine, "val/loss") == logged(whole, "val/loss")
    ours, theirs = weights(mine), weights(whole)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, fit: Fit) -> Path:
    root = tmp_path_factory.mktemp("whole")
    assert fit(*QUIET, "--run.root", str(root / "runs")) == 0
    return only_run(root)


def broken(fit: Fit, callback: str, **arguments: Any) -> int:
    """A fit with a callback that ends it, the schedule being that of the whole run; gives the exit code."""
    given = [f"--trainer.callbacks.{name}={value}" for name, value in arguments.items()]
    return fit(
        *QUIET, f"--trainer.callbacks+=tests.cli.crash.{callback}", *given, "--checkpoint.every_n_train_steps", "1"
    )


@pytest.mark.parametrize(("stop_after", "workers"), [(2, 0), (5, 2), (7, 0), (7, 2)])
def test_resuming_gives_the_run_that_would_have_been(
    stop_after: int, workers: int, uninterrupted: Path, in_tmp: Path, fit: Fit
) -> None:
    """In the middle of an epoch, at the border of two, and in the second; in the middle of accumulation each time."""
    with pytest.raises(RuntimeError, match="crashed on purpose"):
        broken(fit, "CrashAfter", step=stop_after)
    run = only_run(in_tmp)
    assert read_checkpoint(run / "checkpoints" / "last.ckpt")["global_step"] == stop_after
    assert fit(*QUIET, "--ckpt_path", "last", "--data.num_workers", str(workers)) == 0
    assert only_run(in_tmp) == run  # it went on in its own folder
    same_end(run, uninterrupted)
    for pattern in ("config*.yaml", "environment*.json"):
        assert len(list(run.glob(pattern))) == 2


@pytest.mark.parametrize("callback", ["SignalAfter", "SignalInValidation"])
@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_first_and_nothing_is_lost(
    callback: str, signum: int, code: int, uninterrupted: Path, in_tmp: Path, fit: Fit
) -> None:
    """In the middle of accumulation, where the step is brought to its end; and in a validation, which is done again."""
    before = signal.getsignal(signum)
    assert broken(fit, callback, step=5, signum=int(signum)) == code
    assert signal.getsignal(signum) == before
    run = only_run(in_tmp)
    done = 5 + (callback == "SignalAfter")
    saved = read_checkpoint(run / "checkpoints" / "last.ckpt")
    assert (saved["global_step"], saved[CONTENT_KEY]["resume_position"]["validation_due"]) == (
        done,
        callback != "SignalAfter",
    )
    assert fit(*QUIET, "--ckpt_path", str(run)) == 0
    same_end(run, uninterrupted)


VARIANTS = {
    "dora": ("--model.lora.peft.use_dora", "true", "--model.gradient_checkpointing", "true"),
    "pissa": ("--model.lora.peft.init_lora_weights", "pissa_niter_2", "--model.dtype", "bfloat16"),
    "nf4": ("--model.quantize", "nf4"),
    "full": ("--model.lora", "null"),
    "packed": ("--data.packing", "packed"),
}


@pytest.mark.parametrize(
    "variant",
    [
        pytest.param(given, id=name, marks=needs_bitsandbytes if name == "nf4" else ())
        for name, given in VARIANTS.items()
    ],
)
def test_so_does_a_run_with_other_adapters_or_batches(variant: tuple[str, ...], in_tmp: Path, fit: Fit) -> None:
    """A start that is drawn at random comes from the checkpoint, not from the seed."""
    less = (*QUIET, *variant, "--trainer.max_epochs", "1")
    assert fit(*less, "--run.name", "whole") == 0
    crash = "--trainer.callbacks+=tests.cli.crash.CrashAfter", "--trainer.callbacks.step=3"
    with pytest.raises(RuntimeError, match="crashed on purpose"):
        fit(*less, *crash, "--checkpoint.every_n_train_steps", "1")
    assert fit(*less, "--checkpoint.every_n_train_steps", "1", "--ckpt_path", "last", "--seed_everything", "5") == 0
    (whole,), (run,) = ((in_tmp / "runs" / name).iterdir() for name in ("whole", "demo"))
    assert logged(run) == logged(whole)
    mine, uninterrupted = weights(run), weights(whole)
    assert mine.keys() == uninterrupted.keys()
    assert all(torch.equal(mine[name], uninterrupted[name]) for name in mine)


@pytest.mark.parametrize("steps", [4, 5], ids=["in an epoch", "at its end"])
def test_more_steps_continue_too(steps: int, in_tmp: Path, fit: Fit) -> None:
    """The rate is level here: with a schedule, more steps would mean another one from the beginning."""
    level = (*QUIET, "--model.optim.lr_scheduler_type", "constant", "--model.optim.warmup_ratio", "0")
    assert fit(*level, "--run.name", "whole") == 0
    assert fit(*level, "--trainer.max_steps", str(steps)) == 0
    assert fit(*level, "--trainer.max_steps", "10", "--ckpt_path", "last") == 0
    whole, run = (only_run(in_tmp, name) for name in ("whole", "demo"))
    assert read_checkpoint(run / "checkpoints" / "last.ckpt")["global_step"] == 10
    assert logged(run) == logged(whole)
    assert all(torch.equal(tensor, weights(run)[name]) for name, tensor in weights(whole).items())


def test_more_epochs_continue_a_finished_run(in_tmp: Path, fit: Fit) -> None:
    few = ("--model.evaluation.rows", "0", "--trainer.max_epochs", "1")
    assert fit(*few) == 0
    run = only_run(in_tmp)
    before = (run / "metrics.csv").read_text().splitlines()[1:]
    assert fit(*few[:2], "--trainer.max_epochs", "2", "--ckpt_path", str(run)) == 0
    assert read_checkpoint(run / "checkpoints" / "last.ckpt")["global_step"] == 4
    after = (run / "metrics.csv").read_text().splitlines()[1:]
    assert after[: len(before)] == before  # nothing of the earlier log is lost
    assert len(after) > len(before)


def test_settings_on_the_command_line_beat_those_in_the_checkpoint(in_tmp: Path, fit: Fit) -> None:
    short = (
        "--model.evaluation.rows",
        "0",
        "--model.optim.lr_scheduler_type",
        "constant",
        "--model.optim.warmup_ratio",
        "0",
    )
    assert fit(*short, "--trainer.max_steps", "1") == 0
    changed = ("--model.optim.lr", "5e-4", "--model.optim.weight_decay", "0.25", "--model.optim.betas", "[0.8,0.9]")
    assert fit(*short, *changed, "--trainer.max_steps", "2", "--ckpt_path", "last") == 0
    run = only_run(in_tmp)
    assert float(list(logged(run, "lr").values())[-1]) == 5e-4
    group = read_checkpoint(run / "checkpoints" / "last.ckpt")["optimizer_states"][0]["param_groups"][0]
    assert (group["initial_lr"], group["weight_decay"], tuple(group["betas"])) == (5e-4, 0.25, (0.8, 0.9))


def test_other_batches_of_the_same_steps_go_on_where_it_stood(
    uninterrupted: Path, in_tmp: Path, fit: Fit, capsys: pytest.CaptureFixture[str]
) -> None:
    without_dropout = ("--model.lora.dropout", "0")
    assert fit(*QUIET, *without_dropout, "--run.name", "whole") == 0
    with pytest.raises(RuntimeError, match="crashed on purpose"):
        fit(
            *QUIET, *without_dropout, "--trainer.callbacks+=tests.cli.crash.CrashAfter", "--trainer.callbacks.step=7",
            "--checkpoint.every_n_train_steps", "1",
        )  # fmt: skip
    other = ("--data.batch_size", "8", "--trainer.accumulate_grad_batches", "4", "--ckpt_path", "last")
    assert fit(*QUIET, *without_dropout, *other) == 0
    assert (
        "not exact: the checkpoint was written with 16 rows x 2 accumulated x 1 device, now 8 rows"
        in capsys.readouterr().err
    )
    run, whole = only_run(in_tmp), only_run(in_tmp, "whole")
    assert logged(run).keys() == logged(whole).keys()
    for step, loss in logged(whole).items():
        assert float(logged(run)[step]) == pytest.approx(float(loss), rel=1e-4)


def test_steps_of_another_size_begin_the_epoch_anew_and_say_so(
    in_tmp: Path, fit: Fit, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(RuntimeError, match="crashed on purpose"):
        broken(fit, "CrashAfter", step=7)
    assert fit(*QUIET, "--trainer.accumulate_grad_batches", "1", "--ckpt_path", "last") == 0
    assert (
        "5 steps an epoch, now 10: epoch 2 starts again, so the rows of its first 2 steps are seen twice"
        in capsys.readouterr().err
    )
    checkpoint = read_checkpoint(only_run(in_tmp) / "checkpoints" / "last.ckpt")
    assert checkpoint["global_step"] == 7 + 10
    assert checkpoint["lr_schedulers"][0]["last_epoch"] == 20  # the schedule comes to its end all the same


def test_a_run_of_other_rows_is_refused_with_the_difference(
    trained: Path, in_tmp: Path, fit: Fit, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(only_run(trained), in_tmp / "runs" / "demo" / "kept"))
    checkpoint = ("--ckpt_path", str(run / "checkpoints" / "last.ckpt"))
    for setting, value, words in [
        ("--data.train_rows", "96", "data.train_rows: '96' differs from the checkpoint's, 64"),
        ("--data.seed", "3", "data.seed: '3' differs from the checkpoint's, 0"),
        ("--data.steps.split", "none", "data.steps.split: 'none' differs from the checkpoint's, sentence"),
        ("--data.new_tokens", "[<step>]", "has another tokenizer"),
    ]:
        capsys.readouterr()
        assert fit(*checkpoint, setting, value) == 2, setting
        assert words in capsys.readouterr().err
    assert only_run(in_tmp) == run
    assert len(list(run.glob("config*.yaml"))) == 1  # others go by the newest
