"""When a checkpoint is written, which checkpoints stay, and how a fit resumes from one."""

import errno
import logging
import math
import os
import shutil
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, Timer
from lightning.pytorch.trainer.states import TrainerFn

from disk import TEMPORARY, disk_error, disk_errors
from errors import UserError
from lightning_modules.checkpoints.content import CONTENT_KEY, CheckpointContent
from lightning_modules.checkpoints.resume_position import ResumePosition
from lightning_modules.checkpoints.set_aside import set_aside
from lightning_modules.internals.lightning_internals import run_pending_validation
from lightning_modules.run.fit_data import FitData
from lightning_modules.run.folder import Run
from lightning_modules.run.signals import NOTHING, SAVE, Agreement, Signals, Stopped

log = logging.getLogger("thinkwright")


@dataclass
class CheckpointSettings:
    """When `checkpoints/last.ckpt` is written, beside the end of each epoch, the end of training, Ctrl-C and SIGTERM.

    `checkpoints/best.ckpt` is written after each validation with the lowest val/loss so far."""

    every_n_train_steps: int | None = None
    """Write a checkpoint every N optimizer steps; null: not by steps."""
    every_n_minutes: float | None = 10.0
    """Write a checkpoint at the first optimizer step after N minutes without one, the most that a crash can cost;
    null: not by time."""
    save_total_limit: int = 2
    """Number of checkpoints by step or epoch to keep as step-NNN.ckpt, beside last and best; older ones are deleted.
    Raise it to go back to earlier steps."""


class CheckpointCallback(Checkpoint):
    """Writes checkpoints between two optimizer steps when no validation is pending: then all counts agree.

    `saved` is the content of the checkpoint that this fit resumes from, `chosen` its file; None for a new run.
    """

    def __init__(
        self,
        run: Run,
        settings: CheckpointSettings,
        signals: Signals,
        saved: CheckpointContent | None,
        clock: Callable[[], float] = time.monotonic,
        chosen: Path | None = None,
        timed: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self.run, self.settings, self.signals, self.saved, self.clock = run, settings, signals, saved, clock
        self.chosen, self._timed = chosen, timed  # `timed` is entered around each write of a checkpoint
        self.best: float | None = None
        self.agreement = Agreement()
        self._resume: ResumePosition | None = None
        self._in_validation = False
        self._validated = -1  # the optimizer step of the last complete validation

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = state_dict["best"]

    # Resuming

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check that the examples are those of the checkpoint, and find the position in them, before the model loads.

        Raise UserError for other examples, or for a checkpoint that no fit has written.
        """
        if stage != "fit" or self.saved is None:
            return
        if self.saved.resume_position is None or self.saved.data is None:
            raise UserError("--ckpt_path", None, "the file holds no position in a fit", "give a run's last.ckpt")
        data = _data(trainer)
        data.check_same_rows(self.saved.data)
        self._resume, note = self.saved.resume_position.carried_over(data)
        pl_module.extra_steps = self._resume.extra_steps  # type: ignore[assignment]
        if note:
            log.info(f"not exact: {note}")

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint.get("callbacks", {}).pop(Timer.__qualname__, None)  # trainer.max_time counts each start anew
        if self._resume is not None:
            self._resume.apply_to(checkpoint)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin a branch of the run, if it goes on from an older checkpoint: set aside what came after it.

        A checkpoint from elsewhere begins a new run, which has no best checkpoint yet.
        """
        if self._resume is None:
            return
        step = self._resume.global_step
        if trainer.is_global_zero and self.chosen is not None:
            begins = set_aside(self.run, self.chosen, step) is not None
            if begins and self.chosen != self.run.last:
                _link(self.chosen, self.run.last)  # else a crash would leave no last.ckpt
        if self.best is not None and not trainer.strategy.broadcast(self.run.best.is_file()):
            log.info(
                f"the best checkpoint before step {step:,} is no longer there: the next validation writes best.ckpt"
            )
            self.best = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.signals.deferred = True
        self._written, self._since = trainer.global_step, self.clock()
        if self._resume is not None and self._resume.validation_due:
            run_pending_validation(trainer)

    # Writing

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Write before the first batch of an optimizer step: the step before is then logged, validated and counted."""
        if batch_idx % trainer.accumulate_grad_batches:
            return
        wanted = self.agreement.highest(self._wanted(), trainer)
        every = self.settings.every_n_train_steps
        by_step = every is not None and trainer.global_step % every == 0
        if trainer.global_step != self._written and (wanted or by_step):
            self.write_last(trainer, numbered=by_step)
        if wanted > SAVE:
            raise Stopped(wanted, together=True)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.global_step != self._written:
            self.write_last(trainer, numbered=True)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._validated != trainer.global_step and trainer.enable_validation:
            run_pending_validation(trainer)  # the last step is always validated
        self.signals.deferred = False
        if trainer.global_step != self._written:
            self.write_last(trainer, numbered=False)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Validate the last step, if a signal stopped its validation: Lightning begins no loop after the last step."""
        if self._resume is not None and self._resume.validation_due and self._validated < 0:
            self.signals.deferred, self._since = True, self.clock()
            run_pending_validation(trainer)
            self.signals.deferred = False
            self.write_last(trainer, numbered=False)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._in_validation = trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Stop inside a validation if a signal asks for it: its answers can take minutes. A resume validates again."""
        if self._in_validation and (wanted := self.agreement.highest(self._wanted(), trainer)) > SAVE:
            self.write_last(trainer, numbered=False)
            raise Stopped(wanted, together=True)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._in_validation:
            return
        self._in_validation = False
        self._validated = trainer.global_step
        loss = float(trainer.callback_metrics.get("val/loss", math.nan))
        if math.isfinite(loss) and (self.best is None or loss < self.best):
            self.best = loss
            self._save(trainer, self.run.best)

    def write_last(self, trainer: Trainer, numbered: bool) -> None:
        """Write last.ckpt; with `numbered` also step-NNN.ckpt, and delete the oldest beyond save_total_limit.

        Write nothing before the first update: a gradient scaler may skip the first steps, and Lightning cannot load a
        sharded optimizer without state.
        """
        if not trainer.optimizers[0].state:
            return
        self._save(trainer, self.run.last)
        self._written, self._since = trainer.global_step, self.clock()
        if numbered and self.settings.save_total_limit and trainer.is_global_zero:
            with disk_errors("run.root", self.run.checkpoints):
                _link(self.run.last, self.run.numbered(trainer.global_step))
                for old in self.run.all_numbered()[: -self.settings.save_total_limit]:
                    old.unlink()

    def _save(self, trainer: Trainer, path: Path) -> None:
        """Write a checkpoint. Raise UserError if the run's folder is gone: a new one would lack the run's config."""
        if not self.run.folder.is_dir():
            raise disk_error("run.root", self.run.folder, FileNotFoundError(errno.ENOENT, ""))
        with self._timed():
            trainer.save_checkpoint(path)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add our content to a checkpoint of Lightning. Every rank must call it."""
        tuner: Any = pl_module
        data = _data(trainer)
        position = ResumePosition.of(trainer, data, self._in_validation)
        content: CheckpointContent = tuner.checkpoint_content()
        checkpoint[CONTENT_KEY] = content.at(position, data.identity()).to_dict()

    def _wanted(self) -> int:
        minutes = self.settings.every_n_minutes
        long_ago = minutes is not None and self.clock() - self._since >= 60 * minutes
        return self.signals.received or (SAVE if long_ago else NOTHING)


def _data(trainer: Trainer) -> FitData:
    data: FitData = trainer.datamodule  # type: ignore[attr-defined]
    return data


def _link(there: Path, name: Path) -> None:
    """Give a file a second name, atomically; copy it if the file system has no links."""
    scratch = name.with_name(f"{TEMPORARY}{os.getpid()}-{name.name}")
    scratch.unlink(missing_ok=True)
    try:
        os.link(there, scratch)
    except OSError:
        shutil.copyfile(there, scratch)
    os.replace(scratch, name)
