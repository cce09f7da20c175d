"""The program as a process: signals, several ranks, and kill -9 at any moment."""

import csv
import functools
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from cli import main
from lightning_modules.checkpoints.checkpoint_file import read_checkpoint
from lightning_modules.evaluation.baselines import LABELS as BASELINES
from lightning_modules.evaluation.failures import LABELS as FAILURES
from tests.cli.conftest import DEMO, SHORT
from tests.conftest import ROOT

PATH = {"PYTHONPATH": str(ROOT)}  # for the callbacks of tests/cli/crash.py
FSDP = str(ROOT / "configs" / "strategy" / "fsdp.yaml")


def command(*args: str) -> list[str]:
    return [sys.executable, str(ROOT / "cli.py"), *args]


def fit(*args: str) -> list[str]:
    return command("fit", "--config", DEMO, *SHORT, *args)


def here(args: list[str]) -> int:
    """Run the command in this process, where one of its own would prove no more; return the exit code."""
    return main(args[2:])


def only_run(folder: Path) -> Path:
    (run,) = (folder / "runs" / "demo").iterdir()
    return run


@contextmanager
def begun(args: list[str], folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Start a fit and wait for its first checkpoint; the process ends with the block."""
    process = subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        while not list(folder.glob("runs/demo/*/checkpoints/last.ckpt")):
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        yield process
    finally:
        process.kill()
        process.wait()


def breaking(callback: str, **arguments: Any) -> list[str]:
    """Return the options that add a callback of tests/cli/crash.py, which breaks the run."""
    given = [f"--trainer.callbacks.{name}={value}" for name, value in arguments.items()]
    return [f"--trainer.callbacks+=tests.cli.crash.{callback}", *given]


def run(args: list[str], folder: Path) -> tuple[int, str, float]:
    """Run a command until all its processes have ended; return the exit code, the output, and the seconds from the
    moment it was broken (tests/cli/crash.py) to its end."""
    with (folder / "said").open("w+") as said:
        process = subprocess.Popen(
            args, cwd=folder, stdout=said, stderr=subprocess.STDOUT, start_new_session=True, env=os.environ | PATH
        )
        try:
            code = process.wait(timeout=240)
            ended = time.time()
            until = ended + 30  # a loaded machine takes its time
            while time.time() < until and _alive(process.pid):
                time.sleep(0.2)
            assert not _alive(process.pid), "a rank outlived the run"
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        said.seek(0)
        text = said.read()
    broken = folder / "broken"
    return code, text, ended - broken.stat().st_mtime if broken.exists() else 0.0


def _alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def trained(run: Path) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = read_checkpoint(run / "checkpoints" / "last.ckpt")["state_dict"]
    return tensors


def moments(run: Path) -> list[torch.Tensor]:
    """Return Adam's running means of the gradients, by parameter."""
    (optimizer,) = read_checkpoint(run / "checkpoints" / "last.ckpt")["optimizer_states"]
    return [state["exp_avg"] for state in optimizer["state"].values()]


def losses(run: Path, name: str = "train/loss") -> dict[int, str]:
    """Return a figure of metrics.csv by step; the later one if a step was done twice."""
    rows = csv.DictReader((run / "metrics.csv").open())
    return {int(row["step"]): row[name] for row in rows if row[name]}


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_from_outside_ends_training_with_its_code_and_says_how_to_resume(
    sent: int, code: int, in_tmp: Path, cache: Path
) -> None:
    long = ("--trainer.max_epochs", "500", "--checkpoint.every_n_train_steps", "1", "--model.evaluation.rows", "0")
    args = fit(*long, "--data.cache_dir", str(cache), "--data.num_workers", "2")
    with begun(args, in_tmp) as process:
        os.killpg(process.pid, sent)
        _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert "Traceback" not in err
    assert "stopping after this optimizer step and saving" in err
    assert "to resume, add --ckpt_path" in err
    assert read_checkpoint(only_run(in_tmp) / "checkpoints" / "last.ckpt")["global_step"] >= 1


# 10 optimizer steps of 2 batches a rank in two epochs; the last step of each has fewer rows
UNEVEN = (
    "--data.train_rows", "38", "--data.val_rows", "17", "--model.evaluation.rows", "0", "--model.lora.dropout", "0.1",
    "--data.batch_size", "2",
)  # fmt: skip
TWO = {
    "ddp": ["--trainer.devices", "2", "--trainer.strategy", "ddp"],
    "fsdp": [
        "--config", FSDP, *SHORT, "--trainer.devices", "2", "--trainer.strategy.init_args.data_parallel_size", "2",
        "--model.dtype", "float32", "--trainer.precision", "32-true",
    ],
}  # fmt: skip


@pytest.mark.parametrize("strategy", ["one process", "ddp", "fsdp"])
def test_a_run_killed_at_any_batch_resumes_to_the_bit(strategy: str, in_tmp: Path, cache: Path) -> None:
    one = ["--trainer.accumulate_grad_batches", "4", "--data.num_workers", "2"]
    settings = [*TWO.get(strategy, one), *UNEVEN, "--data.cache_dir", str(cache)]
    accumulate = 2 if strategy in TWO else 4
    # After the first checkpoint, in the middle of accumulation or not; a failed assertion prints it
    batch = random.SystemRandom().randrange(3 * accumulate, 10 * accumulate)
    many = strategy in TWO
    whole_run = fit(*settings, "--run.name", "whole")
    assert (run(whole_run, in_tmp)[0] if many else here(whole_run)) == 0
    every = ["--checkpoint.every_n_train_steps", "3"]
    code, said, _ = run(fit(*settings, *every, *breaking("KillAt", batch=batch)), in_tmp)
    assert code == -signal.SIGKILL, said
    assert 0 < read_checkpoint(only_run(in_tmp) / "checkpoints" / "last.ckpt")["global_step"] <= batch // accumulate
    resumed = fit(*settings, *every, "--ckpt_path", "last")
    code, said, _ = run(resumed, in_tmp) if many else (here(resumed), "", 0.0)
    assert code == 0, said
    (whole,), mine = (in_tmp / "runs" / "whole").iterdir(), only_run(in_tmp)
    assert losses(mine) == losses(whole), batch
    assert all(torch.equal(trained(mine)[name], tensor) for name, tensor in trained(whole).items()), batch


@pytest.mark.parametrize("rank", [0, 1])
def test_an_error_on_one_rank_ends_all_with_that_error(rank: int, in_tmp: Path, cache: Path) -> None:
    # Lightning's first rank polls the others every 5 seconds, and kills itself if one has failed
    broken = breaking("CrashAfter", step=2, rank=rank, linger=6)
    code, said, seconds = run(fit(*UNEVEN, *TWO["ddp"], "--data.cache_dir", str(cache), *broken), in_tmp)
    assert code == 1, said
    assert "RuntimeError: crashed on purpose" in said
    assert f"rank {1 - rank} ends because rank {rank} failed: RuntimeError: crashed on purpose" in said
    assert seconds < 60


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_is_killed_ends_all(rank: int, in_tmp: Path, cache: Path) -> None:
    """The killed rank sends no reason; the others detect that it is gone."""
    settings = [*UNEVEN, *TWO["ddp"], "--data.cache_dir", str(cache), "--checkpoint.every_n_train_steps", "1"]
    code, said, seconds = run(fit(*settings, *breaking("KillAt", batch=6, rank=rank)), in_tmp)
    assert code != 0, said
    assert seconds < 60  # `run` asserts that no process outlives the first
    assert read_checkpoint(only_run(in_tmp) / "checkpoints" / "last.ckpt")["global_step"] == 3


@pytest.mark.parametrize("rank", [0, 1])
def test_sigterm_to_any_rank_saves_and_ends_all(rank: int, in_tmp: Path, cache: Path) -> None:
    """Lightning alone hangs for half an hour if it is not the first rank."""
    settings = [*UNEVEN, *TWO["ddp"], "--data.cache_dir", str(cache)]
    code, said, seconds = run(fit(*settings, *breaking("SignalAfter", step=3, rank=rank)), in_tmp)
    assert code == 143, said
    assert seconds < 60
    assert said.count("to resume, add --ckpt_path") == 1
    assert read_checkpoint(only_run(in_tmp) / "checkpoints" / "last.ckpt")["global_step"] == 4


def test_a_step_that_is_not_finite_ends_all_ranks_and_can_be_replayed(
    in_tmp: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = [*UNEVEN, *TWO["ddp"], "--data.cache_dir", str(cache), "--checkpoint.every_n_train_steps", "1"]
    code, said, seconds = run(fit(*settings, *breaking("BreakWeights", step=3, rank=1)), in_tmp)
    assert code == 2, said
    assert seconds < 60
    (line,) = [line for line in said.splitlines() if line.startswith("error: ")]
    assert "optimizer step 4' is not finite (rank 1: loss nan of rows " in line
    folder = only_run(in_tmp)
    assert read_checkpoint(folder / "checkpoints" / "last.ckpt")["global_step"] == 3
    assert all(tensor.isfinite().all() for tensor in trained(folder).values())
    files = sorted((folder / "nonfinite").iterdir())
    assert [file.name for file in files] == ["step-4-rank-0.replay", "step-4-rank-1.replay"]
    assert f"python cli.py replay {files[1].relative_to(in_tmp)};" in line
    assert here(command("replay", str(files[1]))) == 0
    assert "not finite" in capsys.readouterr().out


FEW_ANSWERS = ("--model.evaluation.rows", "4", "--data.train_rows", "70", "--data.val_rows", "17")


PLAIN: tuple[str, ...] = ()
PACKED = ("--data.packing", "packed")
PISSA = ("--model.lora.peft.init_lora_weights", "pissa_niter_2", "--model.lora.peft.use_dora", "true")


@pytest.fixture(scope="module")
def one_process(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Callable[..., Path]:
    """Return a run in one process with these settings; each is trained once."""

    @functools.cache
    def made(*settings: str) -> Path:
        folder = tmp_path_factory.mktemp("one")
        kept_in = ("--run.root", str(folder / "runs"))
        assert here(fit(*FEW_ANSWERS, *settings, *kept_in, "--data.cache_dir", str(cache))) == 0
        return only_run(folder)

    return made


@pytest.mark.parametrize(
    ("strategy", "settings"),
    [("ddp", PLAIN), ("fsdp", PLAIN), ("fsdp", PISSA), ("ddp", PACKED)],
    ids=["ddp", "fsdp", "fsdp pissa dora", "ddp packed"],
)
def test_two_processes_train_what_one_trains(
    strategy: str, settings: tuple[str, ...], one_process: Callable[..., Path], in_tmp: Path, cache: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """With the same rows in each optimizer step: the same losses and gradients step by step, the same figures of the
    validation rows, and a checkpoint that one process reads."""
    two = [*TWO[strategy], *FEW_ANSWERS, *settings, "--trainer.accumulate_grad_batches", "1"]
    code, said, _ = run(fit(*two, "--data.cache_dir", str(cache)), in_tmp)
    assert code == 0, said
    mine, alone = only_run(in_tmp), one_process(*settings)
    for name in ("train/loss", "train/grad_norm"):
        theirs = {step: float(value) for step, value in losses(alone, name).items()}
        assert {step: float(value) for step, value in losses(mine, name).items()} == pytest.approx(theirs, rel=1e-4)
    for ours, right in zip(moments(mine), moments(alone), strict=True):
        assert (ours - right).abs().max() <= 1e-3 * right.abs().max()
    figures, single = (json.loads((folder / "summary.json").read_text()) for folder in (mine, alone))
    for name in ("loss", "loss_thought", "loss_answer", "loss_end", "loss_tag_open", "loss_tag_close", "tag_prob_open"):
        assert figures["before"][name] == pytest.approx(single["before"][name], rel=2e-6), name
        assert figures["after"][name] == pytest.approx(single["after"][name], rel=1e-4), name
    assert figures["after"]["answered"] == 4
    for name in (*FAILURES, *BASELINES):  # of all ranks; the answers of the base are the same
        assert figures["before"].get(name) == single["before"].get(name), name
    assert figures["before"]["cut"] + figures["before"]["baseline_frequent"] > 0
    if not settings:  # the run's config asks for two processes
        code, said, _ = run(command("validate"), in_tmp)
        assert code == 0, said
        assert f"{figures['after']['loss']:.4f}" in said
    capsys.readouterr()
    assert here(command("validate", "--trainer.devices", "1", "--trainer.strategy", "auto")) == 0
    shown = re.search(r"loss per token +[\d.]+ +([\d.]+)", capsys.readouterr().out)
    assert shown is not None and float(shown[1]) == pytest.approx(figures["after"]["loss"], abs=1e-4)
    # One device resumes at the same step, and prints what is not exact
    more = ["--trainer.max_epochs", "3", "--ckpt_path", "last", "--checkpoint.every_n_train_steps", "1"]
    assert here(fit(*FEW_ANSWERS, *settings, *more, "--data.cache_dir", str(cache))) == 0
    said = capsys.readouterr().err
    size = "16 packs of 256 tokens" if settings == PACKED else "16 rows"
    assert f"not exact: the checkpoint was written with {size} x 1 accumulated x 2 devices, now {size}" in said
    assert "up to rounding" in said
    last = read_checkpoint(mine / "checkpoints" / "last.ckpt")
    steps = 6 if settings == PACKED else 9  # of 3 epochs: 70 rows are 2.2 steps of 32
    assert last["global_step"] == steps
    assert {float(state["step"]) for state in last["optimizer_states"][0]["state"].values()} == {float(steps)}
