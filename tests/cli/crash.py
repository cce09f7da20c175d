"""Callbacks that break training, for the tests of resuming and ending. Each writes a file `broken` when it does."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer


class CrashAfter(Callback):
    """Raise in the optimizer step after `step`, on all ranks or one. The process takes `linger` seconds to end."""

    def __init__(self, step: int, rank: int | None = None, linger: float = 0) -> None:
        self.step, self.rank, self.linger = step, rank, linger

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        if trainer.global_step == self.step and self.rank in (None, trainer.global_rank):
            Path("broken").touch()
            trainer.strategy.on_exception = lambda exception: time.sleep(self.linger)  # type: ignore[method-assign]
            raise RuntimeError("crashed on purpose")


class KillAt(Callback):
    """Kill the process with SIGKILL at micro-batch `batch` of the run, on all ranks or one."""

    def __init__(self, batch: int, rank: int | None = None) -> None:
        self.batch, self.rank = batch, rank

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.fit_loop.total_batch_idx == self.batch and self.rank in (None, trainer.global_rank):
            Path("broken").touch()
            os.kill(os.getpid(), signal.SIGKILL)


class SignalInValidation(Callback):
    """Send the process a signal in the validation that follows optimizer step `step`."""

    def __init__(self, step: int, signum: int = 15, rank: int = 0) -> None:
        self.step, self.signum, self.rank = step, signum, rank

    def _send(self, trainer: Trainer) -> None:
        if trainer.global_step == self.step and trainer.state.fn == "fit" and trainer.global_rank == self.rank:
            Path("broken").touch()
            os.kill(os.getpid(), self.signum)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._send(trainer)


class SignalAfter(SignalInValidation):
    """Send the process a signal in the middle of the optimizer step after `step`."""

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        return

    def on_before_zero_grad(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        self._send(trainer)


class BreakWeights(Callback):
    """Set a trained parameter to NaN before optimizer step `step` + 1, on one rank."""

    def __init__(self, step: int, rank: int = 0) -> None:
        self.step, self.rank = step, rank

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == self.step and trainer.global_rank == self.rank:
            parameter = next(p for p in pl_module.parameters() if p.requires_grad)
            Path("broken").touch()
            with torch.no_grad():
                parameter.view(-1)[0] = float("nan")
