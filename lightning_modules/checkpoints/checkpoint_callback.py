"""When a checkpoint is written, which ones stay, and how a fit goes on from one."""

import logging
import math
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.trainer.states import TrainerFn

from datamodules.magpie import MagpieDataModule
from datamodules.same_rows import check_same_rows, identity
from errors import UserError
from lightning_modules.checkpoints.checkpoint_file import KEY
from lightning_modules.checkpoints.resume_position import ResumePosition
from lightning_modules.run.folder import Run
from lightning_modules.run.signals import NOTHING, SAVE, Agreement, Signals, Stopped

log = logging.getLogger("thinkwright")


@dataclass
class CheckpointSettings:
    """`checkpoints/last.ckpt` is written as often as is said here, at the end of training, and when Ctrl-C or SIGTERM
    ends it; `checkpoints/best.ckpt` whenever a validation has the lowest val/loss so far."""

    every_n_steps: int | None = None
    """Every so many optimizer steps; null for none."""
    every_n_epochs: int | None = 1
    """At the end of every so many epochs; null for none."""
    every_n_minutes: float | None = 10.0
    """At the first optimizer step after so many minutes without one: what a crash can cost at most. null for none."""
    keep: int = 2
    """How many of those by steps and epochs stay beside last and best, as step-NNN.ckpt; the newest."""

    def __post_init__(self) -> None:
        for name, least in (("every_n_steps", 1), ("every_n_epochs", 1), ("every_n_minutes", 0), ("keep", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise UserError(f"checkpoint.{name}", value, f"is below {least}", f"give {least} or more, or null")


class CheckpointCallback(Checkpoint):
    """Writes checkpoints between two optimizer steps, when no validation is pending: then all counts agree.

    `saved` is our part of the checkpoint that this fit goes on from, or None for a new run.
    """

    def __init__(
        self,
        run: Run,
        settings: CheckpointSettings,
        signals: Signals,
        saved: dict[str, Any] | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.run, self.settings, self.signals, self.saved, self.clock = run, settings, signals, saved, clock
        self.best: float | None = None
        self.agreement = Agreement()
        self._resume: ResumePosition | None = None
        self._in_validation = False

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = state_dict["best"]

    # Going on from a checkpoint

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Before the model is loaded: whether the rows are those of the checkpoint, and where in them it stands."""
        if stage != "fit" or self.saved is None:
            return
        data = _data(trainer)
        check_same_rows(self.saved["data"], identity(data))
        self._resume, note = ResumePosition.from_dict(self.saved["position"]).carried_over(
            data.steps_per_epoch, data.sizes()
        )
        if note:
            log.info(f"not exact: {note}")

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if self._resume is not None:
            self._resume.apply_to(checkpoint)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.signals.deferred = True
        self._written, self._since = trainer.global_step, self.clock()
        if self._resume is not None and self._resume.validation_due:
            trainer.validating = True
            trainer.fit_loop.epoch_loop.val_loop.run()
            trainer.training = True

    # Writing

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Before the first batch of an optimizer step all of the one before is done: logged, validated and counted."""
        if batch_idx % trainer.accumulate_grad_batches:
            return
        wanted = self.agreement.highest(self._wanted(), trainer)
        every = self.settings.every_n_steps
        by_step = every is not None and trainer.global_step % every == 0
        if trainer.global_step != self._written and (wanted or by_step):
            self.write_last(trainer, numbered=by_step)
        if wanted > SAVE:
            raise Stopped(wanted, together=True)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        every = self.settings.every_n_epochs
        if trainer.global_step != self._written and every and (trainer.current_epoch + 1) % every == 0:
            self.write_last(trainer, numbered=True)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.signals.deferred = False
        if trainer.global_step != self._written:
            self.write_last(trainer, numbered=False)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._in_validation = trainer.state.fn == TrainerFn.FITTING

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """A signal need not wait for the answers of a whole validation, which is done again instead."""
        if self._in_validation and (wanted := self.agreement.highest(self._wanted(), trainer)) > SAVE:
            self.write_last(trainer, numbered=False)
            raise Stopped(wanted, together=True)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._in_validation or trainer.sanity_checking:
            return
        self._in_validation = False
        loss = float(trainer.callback_metrics.get("val/loss", math.nan))
        if math.isfinite(loss) and (self.best is None or loss < self.best):
            self.best = loss
            trainer.save_checkpoint(self.run.best)

    def write_last(self, trainer: Trainer, numbered: bool) -> None:
        """last.ckpt; with `numbered` also under the name of its step, of which the newest few stay.

        Nothing as long as nothing was updated: a gradient scaler may leave out the first steps, and Lightning cannot go
        on from a sharded optimizer without state.
        """
        if not trainer.optimizers[0].state:
            return
        trainer.save_checkpoint(self.run.last)
        self._written, self._since = trainer.global_step, self.clock()
        if numbered and self.settings.keep and trainer.is_global_zero:
            _link(self.run.last, self.run.numbered(trainer.global_step))
            for old in self.run.all_numbered()[: -self.settings.keep]:
                old.unlink()

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        data = _data(trainer)
        position = ResumePosition.of(trainer, data.steps_per_epoch, data.sizes(), self._in_validation)
        ours: dict[str, Any] = checkpoint.setdefault(KEY, {})
        ours |= {"position": position.to_dict(), "data": identity(data)}

    def _wanted(self) -> int:
        minutes = self.settings.every_n_minutes
        long_ago = minutes is not None and self.clock() - self._since >= 60 * minutes
        return self.signals.received or (SAVE if long_ago else NOTHING)


def _data(trainer: Trainer) -> MagpieDataModule:
    data: MagpieDataModule = trainer.datamodule  # type: ignore[attr-defined]
    return data


def _link(there: Path, name: Path) -> None:
    """The same file under another name, whole or not at all; a copy where the file system has no links."""
    scratch = name.with_name(f".{name.name}.{os.getpid()}")
    scratch.unlink(missing_ok=True)
    try:
        os.link(there, scratch)
    except OSError:
        shutil.copyfile(there, scratch)
    os.replace(scratch, name)
