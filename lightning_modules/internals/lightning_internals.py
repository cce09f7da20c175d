"""Private APIs of Lightning: its signal handlers, its loop counters, and a validation between two optimizer steps."""

from dataclasses import dataclass
from typing import Any

from lightning.pytorch import Trainer


@dataclass(frozen=True)
class LoopCounts:
    """The counters of a fit between two optimizer steps. A batch is a micro-batch of one rank."""

    epochs: int  # complete epochs
    steps: int  # optimizer steps in the epoch after them
    batches_in_epoch: int
    batches: int  # since the start of the fit
    global_step: int  # optimizer steps since the start of the fit, and the position in the schedule


def disable_signal_handlers(trainer: Trainer) -> None:
    """Keep Lightning from installing signal handlers: run.signals.Signals handles SIGINT and SIGTERM.

    Why private: Lightning has no setting for it. Its handler of SIGTERM broadcasts, which hangs for 30 minutes if
    another rank than the first gets the signal.
    """
    trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]


def batches_done(trainer: Trainer) -> int:
    """Return the number of batches that this rank has processed since the first epoch, also before a resume.

    Why private: the public `fit_loop.total_batch_idx` counts batches that were fetched, not batches that are done.
    """
    return int(trainer.fit_loop.epoch_loop.batch_progress.total.processed)  # type: ignore[attr-defined]


def run_pending_validation(trainer: Trainer) -> None:
    """Run a validation inside a fit, before its next training batch.

    Why private: Lightning validates only after a training batch. The two flags choose the loop that hooks and logging
    see; Lightning's training loop sets them in the same way.
    """
    trainer.validating = True
    trainer.fit_loop.epoch_loop.val_loop.run()
    trainer.training = True


def set_loop_counts(checkpoint: dict[str, Any], counts: LoopCounts) -> None:
    """Set all counters in a checkpoint of Lightning, in place, as if training had just reached `counts`.

    Why private: Lightning restores its loops from `checkpoint["loops"]` alone, and has no way to set a position.
    """
    loop = checkpoint["loops"]["fit_loop"]
    started = counts.epochs + (counts.steps > 0)
    for progress in (loop["epoch_progress"]["total"], loop["epoch_progress"]["current"]):
        progress.update(ready=started, started=started, processed=counts.epochs, completed=counts.epochs)
    _set(loop["epoch_loop.batch_progress"], counts.batches, counts.batches_in_epoch)
    loop["epoch_loop.batch_progress"]["is_last_batch"] = False
    _set(loop["epoch_loop.val_loop.batch_progress"], 0, 0)
    loop["epoch_loop.val_loop.batch_progress"]["is_last_batch"] = False
    _set(loop["epoch_loop.scheduler_progress"], counts.global_step, counts.steps)
    optimizer = loop["epoch_loop.automatic_optimization.optim_progress"]["optimizer"]
    for counter in ("step", "zero_grad"):
        _set(optimizer[counter], counts.global_step, counts.steps)
    loop["epoch_loop.state_dict"]["_batches_that_stepped"] = counts.global_step
    for schedule in checkpoint["lr_schedulers"]:
        schedule["last_epoch"] = counts.global_step
        schedule["_step_count"] = counts.global_step + 1


def _set(progress: dict[str, Any], total: int, current: int) -> None:
    for name, value in (("total", total), ("current", current)):
        progress[name] = dict.fromkeys(progress[name], value)
