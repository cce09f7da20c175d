"""A resumed run ends with the same weights and losses as an uninterrupted one, to the bit."""

import csv
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_modules.checkpoints import checkpoint_file, model_identity
from lightning_modules.checkpoints.checkpoint_callback import CheckpointCallback
from lightning_modules.checkpoints.checkpoint_file import read_checkpoint
from lightning_modules.checkpoints.content import CONTENT_KEY
from lightning_modules.run.lock import RunLock
from tests.conftest import needs_bitsandbytes

Fit = Callable[..., int]
# 5 optimizer steps an epoch, each of 2 batches; dropout; a log interval that does not divide the epoch
QUIET = (
    "--model.evaluation.rows", "0", "--data.train_rows", "40", "--data.batch_size", "4", "--model.lora.dropout", "0.2",
    "--trainer.log_every_n_steps", "3",
)  # fmt: skip


def weights(run: Path) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = read_checkpoint(run / "checkpoints" / "last.ckpt")["state_dict"]
    return tensors


def logged(run: Path, name: str = "train/loss") -> dict[int, str]:
    """A figure by step. If a step was done twice, the later figure."""
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
    """The exit code of a fit that a callback ends; its schedule is that of the whole run."""
    given = [f"--trainer.callbacks.{name}={value}" for name, value in arguments.items()]
    return fit(
        *QUIET, f"--trainer.callbacks+=tests.cli.crash.{callback}", *given, "--checkpoint.every_n_train_steps", "1"
    )


@pytest.mark.parametrize(("stop_after", "workers"), [(2, 0), (5, 2), (7, 0), (7, 2)])
def test_a_resumed_run_equals_the_uninterrupted_run(
    stop_after: int, workers: int, uninterrupted: Path, in_tmp: Path, fit: Fit
) -> None:
    """The crash is within an epoch, between two epochs, or in the second one; always in the middle of accumulation."""
    with pytest.raises(RuntimeError, match="crashed on purpose"):
        broken(fit, "CrashAfter", step=stop_after)
    run = only_run(in_tmp)
    assert read_checkpoint(run / "checkpoints" / "last.ckpt")["global_step"] == stop_after
    assert fit(*QUIET, "--ckpt_path", "last", "--data.num_workers", str(workers)) == 0
    assert only_run(in_tmp) == run  # it continues in its own folder
    same_end(run, uninterrupted)
    for pattern in ("config*.yaml", "environment*.json"):
        assert len(list(run.glob(pattern))) == 2


@pytest.mark.parametrize("callback", ["SignalAfter", "SignalInValidation"])
@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_that_a_signal_stopped_resumes_exactly(
    callback: str, signum: int, code: int, uninterrupted: Path, in_tmp: Path, fit: Fit
) -> None:
    """In the middle of accumulation the step is completed first; a validation is repeated after the resume."""
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
def test_runs_with_other_adapters_or_batches_resume_exactly(variant: tuple[str, ...], in_tmp: Path, fit: Fit) -> None:
    """Random initial adapters come from the checkpoint, not from the seed."""
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


@pytest.mark.parametrize("steps", [4, 5], ids=["within an epoch", "at its end"])
def test_a_higher_max_steps_continues_a_finished_run(steps: int, in_tmp: Path, fit: Fit) -> None:
    """The learning rate is constant: with a schedule, more steps would change it from the first step."""
    level = (*QUIET, "--model.optim.lr_scheduler_type", "constant", "--model.optim.warmup_ratio", "0")
    assert fit(*level, "--run.name", "whole") == 0
    assert fit(*level, "--trainer.max_steps", str(steps)) == 0
    assert fit(*level, "--trainer.max_steps", "10", "--ckpt_path", "last") == 0
    whole, run = (only_run(in_tmp, name) for name in ("whole", "demo"))
    assert read_checkpoint(run / "checkpoints" / "last.ckpt")["global_step"] == 10
    assert logged(run) == logged(whole)
    assert all(torch.equal(tensor, weights(run)[name]) for name, tensor in weights(whole).items())


def test_a_higher_max_epochs_continues_a_finished_run(in_tmp: Path, fit: Fit) -> None:
    few = ("--model.evaluation.rows", "0", "--trainer.max_epochs", "1")
    assert fit(*few) == 0
    run = only_run(in_tmp)
    before = (run / "metrics.csv").read_text().splitlines()[1:]
    assert fit(*few[:2], "--trainer.max_epochs", "2", "--ckpt_path", str(run)) == 0
    assert read_checkpoint(run / "checkpoints" / "last.ckpt")["global_step"] == 4
    after = (run / "metrics.csv").read_text().splitlines()[1:]
    assert after[: len(before)] == before  # the earlier log is complete
    assert len(after) > len(before)


def test_optimizer_settings_come_from_the_command_line_and_not_from_the_checkpoint(in_tmp: Path, fit: Fit) -> None:
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


def test_other_batches_of_the_same_steps_resume_at_the_same_step(
    uninterrupted: Path, in_tmp: Path, fit: Fit, capsys: pytest.CaptureFixture[str]
) -> None:
    without_dropout = ("--model.lora.dropout", "0")
    assert fit(*QUIET, *without_dropout, "--run.name", "whole") == 0
    with pytest.raises(RuntimeError, match="crashed on purpose"):
        fit(
            *QUIET, *without_dropout, "--trainer.callbacks+=tests.cli.crash.CrashAfter", "--trainer.callbacks.step=7",
            "--checkpoint.every_n_train_steps", "1",
        )  # fmt: skip
    other = ("--data.batch_size", "2", "--trainer.accumulate_grad_batches", "4", "--ckpt_path", "last")
    assert fit(*QUIET, *without_dropout, *other) == 0
    assert (
        "not exact: the checkpoint was written with 4 rows x 2 accumulated x 1 device, now 2 rows"
        in capsys.readouterr().err
    )
    run, whole = only_run(in_tmp), only_run(in_tmp, "whole")
    assert logged(run).keys() == logged(whole).keys()
    for step, loss in logged(whole).items():
        assert float(logged(run)[step]) == pytest.approx(float(loss), rel=1e-4)


def test_steps_of_another_size_start_the_epoch_again_and_say_so(
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
    assert checkpoint["lr_schedulers"][0]["last_epoch"] == 17  # the schedule counts optimizer steps


def test_a_resume_with_other_rows_is_refused_with_the_difference(
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
    assert len(list(run.glob("config*.yaml"))) == 1  # other commands read the newest config


def test_a_resume_reads_and_hashes_the_checkpoint_once_and_compares_the_model_once(
    trained: Path, in_tmp: Path, fit: Fit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although the command line checks it before the model is loaded, and Lightning loads it afterwards."""
    run = Path(shutil.copytree(only_run(trained), in_tmp / "runs" / "demo" / "kept"))
    hashed, compared, opened = [], [], []
    has_right_checksum, check_settings = checkpoint_file._has_right_checksum, model_identity.check_settings
    path_open = Path.open

    def note_hash(path: Path) -> bool:
        hashed.append(path.name)
        return has_right_checksum(path)

    def note_comparison(*args: Any) -> None:
        compared.append(args)
        check_settings(*args)

    def note_open(path: Path, *args: Any, **kwargs: Any) -> Any:
        opened.extend([path.name] if path.suffix == ".ckpt" and args == ("rb",) else [])
        return path_open(path, *args, **kwargs)

    monkeypatch.setattr(checkpoint_file, "_has_right_checksum", note_hash)
    monkeypatch.setattr(model_identity, "check_settings", note_comparison)
    monkeypatch.setattr(Path, "open", note_open)
    last = str(run / "checkpoints" / "last.ckpt")
    assert fit("--ckpt_path", last, "--trainer.max_epochs", "3") == 0
    assert hashed == opened == ["last.ckpt", "best.ckpt"]  # the second for the table at the end
    assert len(compared) == 1


FEW = (*QUIET, "--trainer.log_every_n_steps", "1", "--checkpoint.every_n_train_steps", "1")
STEPS = ("--checkpoint.save_total_limit", "9", "--trainer.val_check_interval", "2")


def test_going_on_from_an_older_checkpoint_keeps_what_came_after_it(in_tmp: Path, fit: Fit) -> None:
    """A rate near 0 makes the new branch worse, so the best of the old branch must not be taken for its best."""
    assert fit(*FEW, *STEPS, "--trainer.max_steps", "6") == 0
    run = only_run(in_tmp)
    old = {path.name: path.read_bytes() for path in (run / "checkpoints").iterdir()}
    lines = logged(run)
    older = ("--ckpt_path", str(run / "checkpoints" / "step-0000003.ckpt"))
    assert fit(*FEW, *STEPS, "--trainer.max_steps", "5", "--model.optim.lr", "1e-9", *older) == 0
    (aside,) = (run / "set-aside").iterdir()
    assert {"last.ckpt", "best.ckpt", "step-0000004.ckpt", "step-0000005.ckpt", "step-0000006.ckpt"} <= {
        path.name for path in aside.iterdir()
    }
    for path in [*aside.glob("*.ckpt"), run / "checkpoints" / "step-0000003.ckpt"]:
        assert path.read_bytes() == old[path.name]
    assert sorted(logged(aside)) == [4, 5, 6] and sorted(logged(run)) == [1, 2, 3, 4, 5]
    assert {step: loss for step, loss in logged(run).items() if step <= 3} == {k: lines[k] for k in (1, 2, 3)}
    best = read_checkpoint(run / "checkpoints" / "best.ckpt")
    losses = {step: float(loss) for step, loss in logged(run, "val/loss").items() if step > 3}
    assert losses[best["global_step"]] == min(losses.values())


def test_the_last_step_is_validated_and_has_the_lowest_rate_after_a_resume_with_other_batches(
    in_tmp: Path, fit: Fit, capfd: pytest.CaptureFixture[str]
) -> None:
    falling = (
        "--model.optim.lr_scheduler_type", "linear", "--model.optim.min_lr_ratio", "0.25", "--model.optim.lr", "0.004",
        "--model.optim.new_token_lr", "null", "--model.optim.warmup_ratio", "0",
    )  # fmt: skip
    assert fit(*FEW, *falling, "--trainer.max_steps", "3") == 0
    run = only_run(in_tmp)
    assert float(logged(run, "lr")[3]) == pytest.approx(0.001)
    assert 3 in logged(run, "val/loss")
    again = ("--ckpt_path", "last", "--trainer.accumulate_grad_batches", "1", "--trainer.max_steps", "7")
    assert fit(*FEW, *falling, *again) == 0
    rates = [float(rate) for _, rate in sorted(logged(run, "lr").items())]
    assert rates[-1] == pytest.approx(0.001) and min(rates[3:-1]) > 0.001
    assert 7 in logged(run, "val/loss")
    assert "of optimizer step 7 of 7" in capfd.readouterr().err


def test_max_time_counts_each_start(in_tmp: Path, fit: Fit) -> None:
    limit = ("--trainer.max_time", "00:00:00:02", "--trainer.max_epochs", "200")
    assert fit(*FEW, *limit) == 0
    done = read_checkpoint(only_run(in_tmp) / "checkpoints" / "last.ckpt")["global_step"]
    assert fit(*FEW, *limit, "--ckpt_path", "last") == 0
    assert read_checkpoint(only_run(in_tmp) / "checkpoints" / "last.ckpt")["global_step"] > done


@pytest.mark.parametrize("name", ["exp[1]", "qwen/lr1", "a*b?"])
def test_a_run_of_any_name_is_found_again(name: str, in_tmp: Path, fit: Fit) -> None:
    few = (*QUIET, "--run.name", name)
    assert fit(*few, "--trainer.max_steps", "1") == 0
    assert fit(*few, "--trainer.max_steps", "2", "--ckpt_path", "last") == 0
    (run,) = (in_tmp / "runs" / name).iterdir()
    assert read_checkpoint(run / "checkpoints" / "last.ckpt")["global_step"] == 2


def test_a_fit_into_a_run_that_another_process_writes_is_refused(
    in_tmp: Path, fit: Fit, capfd: pytest.CaptureFixture[str]
) -> None:
    assert fit(*QUIET, "--trainer.max_steps", "1") == 0
    run = only_run(in_tmp)
    lock = RunLock(run)
    assert fit(*QUIET, "--trainer.max_steps", "2", "--ckpt_path", "last") == 2
    assert "is being written by process" in capfd.readouterr().err
    lock.release()
    assert fit(*QUIET, "--trainer.max_steps", "2", "--ckpt_path", "last") == 0


def test_a_signal_in_the_last_validation_leaves_it_to_the_resume(
    in_tmp: Path, fit: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lightning begins no loop after the last step, so the best checkpoint would stay that of an earlier step."""
    own = CheckpointCallback.on_validation_batch_start

    def signalled(self: Any, trainer: Any, *given: Any, **more: Any) -> None:
        if self._in_validation and trainer.global_step == 4:
            self.signals.received = signal.SIGINT
        own(self, trainer, *given, **more)

    def steps() -> tuple[int, int]:
        (run,) = (in_tmp / "runs" / "demo").iterdir()
        best, last = (read_checkpoint(run / "checkpoints" / f"{name}.ckpt") for name in ("best", "last"))
        return best["global_step"], last["global_step"]

    with monkeypatch.context() as patched:
        patched.setattr(CheckpointCallback, "on_validation_batch_start", signalled)
        assert fit() == 128 + signal.SIGINT
    assert steps() == (2, 4)
    assert fit("--ckpt_path", "last") == 0
    assert steps() == (4, 4)
    assert fit("--ckpt_path", "last") == 0  # nothing is left to do
    assert steps() == (4, 4)
