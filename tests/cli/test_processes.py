"""The program as a process: signals, several ranks, and a kill at any moment."""

import functools
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_modules.checkpoint import read_checkpoint
from tests.cli.conftest import DEMO, SHORT
from tests.conftest import ROOT

FSDP = str(ROOT / "configs" / "strategy" / "fsdp.yaml")


def command(*args: str) -> list[str]:
    return [sys.executable, str(ROOT / "cli.py"), *args]


def fit(*args: str) -> list[str]:
    return command("fit", "--config", DEMO, *SHORT, *args)


def only_run(folder: Path) -> Path:
    (run,) = (folder / "runs" / "demo").iterdir()
    return run


@contextmanager
def begun(args: list[str], folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A fit under way, from its first checkpoint on; it does not outlive the test."""
    process = subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        while not list(folder.glob("runs/demo/*/checkpoints/last.ckpt")):
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_training_with_its_code_and_the_way_on(sent: int, code: int, in_tmp: Path, cache: Path) -> None:
    long = ("--trainer.max_epochs", "500", "--checkpoint.every_n_steps", "1", "--model.evaluation.rows", "0")
    args = fit(*long, "--data.cache_dir", str(cache))
    with begun(args, in_tmp) as process:
        process.send_signal(sent)
        _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert "Traceback" not in err
    last = only_run(in_tmp) / "checkpoints" / "last.ckpt"
    assert "goes on" in err
    assert read_checkpoint(last)["global_step"] >= 1


def test_a_kill_leaves_a_whole_checkpoint_and_the_run_goes_on_to_the_same_end(in_tmp: Path, cache: Path) -> None:
    more = (
        "--checkpoint.every_n_steps",
        "1",
        "--model.evaluation.rows",
        "0",
        "--data.train_rows",
        "320",
        "--data.cache_dir",
        str(cache),
    )
    assert subprocess.run(fit(*more, "--run.name", "whole"), capture_output=True, check=False).returncode == 0
    with begun(fit(*more), in_tmp) as process:
        time.sleep(0.2)
        process.kill()
    run = only_run(in_tmp)
    stopped_at = read_checkpoint(run / "checkpoints" / "last.ckpt")["global_step"]
    assert 1 <= stopped_at < 20
    resumed = subprocess.run(fit(*more, "--ckpt_path", "last"), capture_output=True, text=True, check=False)
    assert resumed.returncode == 0, resumed.stderr
    (whole,) = (in_tmp / "runs" / "whole").iterdir()
    one, two = (read_checkpoint(path / "checkpoints" / "last.ckpt")["state_dict"] for path in (whole, run))
    assert all(torch.equal(one[name], two[name]) for name in one)


FEW_ANSWERS = ("--model.evaluation.rows", "4")


PLAIN: tuple[str, ...] = ()
PISSA = ("--model.lora.peft.init_lora_weights", "pissa_niter_2", "--model.lora.peft.use_dora", "true")
NF4 = ("--model.quantize", "nf4")


@pytest.fixture(scope="module")
def one_process(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Callable[..., dict[str, Any]]:
    """The summary of a run in one process, with these settings; each made once."""

    @functools.cache
    def run(*settings: str) -> dict[str, Any]:
        folder = tmp_path_factory.mktemp("one")
        args = fit(*FEW_ANSWERS, *settings, "--data.cache_dir", str(cache))
        done = subprocess.run(args, cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        summary: dict[str, Any] = json.loads((only_run(folder) / "summary.json").read_text())
        return summary

    return run


@pytest.mark.parametrize(
    ("strategy", "settings"),
    [("ddp", PLAIN), ("fsdp", PLAIN), ("ddp", PISSA), ("fsdp", PISSA), ("ddp", NF4)],
    ids=["ddp", "fsdp", "ddp pissa dora", "fsdp pissa dora", "ddp nf4"],
)
def test_two_processes_train_what_one_trains(
    strategy: str,
    settings: tuple[str, ...],
    one_process: Callable[..., dict[str, Any]],
    in_tmp: Path,
    cache: Path,
) -> None:
    """The same rows a step, on one rank and on two: the same losses, and a checkpoint that one process reads."""
    two_ranks = ["--trainer.devices", "2", "--trainer.accumulate_grad_batches", "1"]
    if strategy == "fsdp":
        config = ["--config", FSDP, *SHORT, "--model.dtype", "float32", "--trainer.precision", "32-true"]
        two_ranks += ["--trainer.strategy.init_args.data_parallel_size", "2"]
    else:
        config = ["--trainer.strategy", "ddp"]
    two = subprocess.run(
        [*fit(*config, *FEW_ANSWERS, *settings, "--data.cache_dir", str(cache)), *two_ranks],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert two.returncode == 0, two.stderr
    figures = json.loads((only_run(in_tmp) / "summary.json").read_text())
    alone = one_process(*settings)
    for name in ("loss", "loss_thought", "loss_answer", "loss_end", "loss_tag_open", "loss_tag_close"):
        for moment in ("before", "after"):
            assert figures[moment][name] == pytest.approx(alone[moment][name], rel=1e-4), (moment, name)
    assert figures["after"]["answered"] == 4
    if strategy == "ddp" and not settings:  # the run's config asks for two processes again
        checked = subprocess.run(command("validate"), capture_output=True, text=True, check=False)
        assert checked.returncode == 0, checked.stderr
    single = ["--trainer.devices", "1", "--trainer.strategy", "auto"]
    read = subprocess.run(command("validate", *single), capture_output=True, text=True, check=False)
    assert read.returncode == 0, read.stderr
    shown = re.search(r"loss per token +([\d.]+)", read.stdout)
    assert shown is not None and float(shown[1]) == pytest.approx(figures["after"]["loss"], abs=1e-4)
