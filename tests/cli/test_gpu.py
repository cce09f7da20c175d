"""The program on one GPU: each precision, kind of adapter and strategy; saved, resumed and exported."""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cli import main
from lightning_modules.checkpoints.checkpoint_file import read_checkpoint
from tests.cli.conftest import DEMO, SHORT
from tests.conftest import ROOT, needs_bitsandbytes

pytestmark = pytest.mark.gpu
Fit = Callable[..., int]
HALVES = {"16-mixed": "float16", "bf16-mixed": "bfloat16"}
FSDP = ("--config", str(ROOT / "configs" / "strategy" / "fsdp.yaml"), *SHORT)
STRATEGIES = {
    "fsdp": (*FSDP, "--trainer.devices", "1", "--trainer.strategy.init_args.data_parallel_size", "1"),
    "ddp": ("--trainer.strategy", "ddp"),
}


def on_gpu(precision: str) -> tuple[str, ...]:
    held_in = ("--model.dtype", HALVES.get(precision, "float32"))
    return ("--trainer.accelerator", "gpu", "--trainer.precision", precision, *held_in)


def only_run(folder: Path, name: str = "demo") -> Path:
    (run,) = (folder / "runs" / name).iterdir()
    return run


def learned(run: Path) -> None:
    content: dict[str, Any] = json.loads((run / "summary.json").read_text())
    assert content["after"]["loss"] < content["before"]["loss"]
    saved = read_checkpoint(run / "checkpoints" / "last.ckpt")
    assert {tensor.dtype for tensor in saved["state_dict"].values()} == {torch.float32}
    moments = [value for state in saved["optimizer_states"][0]["state"].values() for value in state.values()]
    assert {tensor.dtype for tensor in moments} == {torch.float32}


@pytest.mark.parametrize("precision", [*HALVES, "32-true"])
def test_each_precision_learns(precision: str, in_tmp: Path, fit: Fit) -> None:
    assert fit(*on_gpu(precision)) == 0
    learned(only_run(in_tmp))


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param(("--model.quantize", "nf4"), marks=needs_bitsandbytes),
        ("--model.lora.peft.use_dora", "true"),
        ("--model.lora.peft.init_lora_weights", "pissa"),
        ("--model.lora", "null"),
    ],
    ids=["nf4", "dora", "pissa", "full"],
)
def test_each_kind_of_adapter_learns_goes_on_and_is_exported(settings: tuple[str, ...], in_tmp: Path, fit: Fit) -> None:
    given = (*on_gpu("bf16-mixed"), *settings, *(("--model.dtype", "float32") if "null" in settings else ()))
    assert fit(*given) == 0
    assert fit(*given, "--trainer.max_epochs", "3", "--ckpt_path", "last") == 0
    learned(only_run(in_tmp))
    assert main(["export", "--to", "merged"]) == 0


@pytest.mark.parametrize("precision", HALVES)
def test_a_run_that_broke_ends_where_the_uninterrupted_one_does(precision: str, in_tmp: Path, fit: Fit) -> None:
    """With dropout, in the middle of an epoch; up to what the kernels of a GPU may differ by from call to call."""
    more = (
        *on_gpu(precision),
        "--data.train_rows",
        "160",
        "--model.lora.dropout",
        "0.2",
        "--model.evaluation.rows",
        "0",
    )
    assert fit(*more, "--run.name", "whole") == 0
    crash = ("--trainer.callbacks+=tests.cli.crash.CrashAfter", "--trainer.callbacks.step=7")
    with pytest.raises(RuntimeError, match="crashed on purpose"):
        fit(*more, *crash, "--checkpoint.every_n_train_steps", "1")
    assert fit(*more, "--ckpt_path", "last") == 0
    mine, whole = only_run(in_tmp), only_run(in_tmp, "whole")
    ours, theirs = (
        {int(row["step"]): float(row["train/loss"]) for row in csv.DictReader(file.open()) if row["train/loss"]}
        for file in (mine / "metrics.csv", whole / "metrics.csv")
    )
    assert ours == pytest.approx(theirs, rel=1e-2)
    one, two = (read_checkpoint(run / "checkpoints" / "last.ckpt") for run in (mine, whole))
    assert one["global_step"] == two["global_step"] == 10
    assert one.get("MixedPrecision") == two.get("MixedPrecision")  # the scale, and how long it has been that
    assert ("MixedPrecision" in one) == (precision == "16-mixed")


@pytest.mark.parametrize(("strategy", "precision"), [("fsdp", "16-mixed"), ("fsdp", "bf16-mixed"), ("ddp", "16-mixed")])
def test_strategies_of_several_devices_learn_and_go_on_with_one(strategy: str, precision: str, in_tmp: Path) -> None:
    """Over NCCL, in processes of their own: a process group and its environment would stay with the other tests."""
    given = ["fit", "--config", DEMO, *SHORT, *STRATEGIES[strategy], *on_gpu(precision)]
    for more in ([], ["--trainer.max_epochs", "3", "--ckpt_path", "last"]):
        done = subprocess.run(
            [sys.executable, str(ROOT / "cli.py"), *given, *more],
            env=os.environ, capture_output=True, text=True, timeout=200, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    learned(only_run(in_tmp))
    assert read_checkpoint(only_run(in_tmp) / "checkpoints" / "last.ckpt")["global_step"] == 6
