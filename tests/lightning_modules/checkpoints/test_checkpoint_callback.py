import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from errors import UserError
from lightning_modules.checkpoints.checkpoint_callback import CheckpointCallback, CheckpointSettings
from lightning_modules.run.folder import Run
from lightning_modules.run.signals import Signals, Stopped


class FakeTrainer(SimpleNamespace):
    """Counts steps and writes files with the step in them."""

    def __init__(self) -> None:
        super().__init__(
            global_step=0, current_epoch=0, accumulate_grad_batches=2, world_size=1, is_global_zero=True,
            callback_metrics={}, sanity_checking=False, state=SimpleNamespace(fn="fit"),
            optimizers=[SimpleNamespace(state={"a parameter": "its moments"})],
        )  # fmt: skip
        self.written: list[tuple[str, int]] = []

    def save_checkpoint(self, path: Path) -> None:
        self.written.append((path.name, self.global_step))
        scratch = path.with_suffix(".tmp")
        scratch.write_text(str(self.global_step))
        os.replace(scratch, path)


def saver(tmp_path: Path, **settings: Any) -> tuple[CheckpointCallback, Any, list[float], Signals]:
    clock, signals = [0.0], Signals()
    Run(tmp_path).checkpoints.mkdir()
    callback = CheckpointCallback(Run(tmp_path), CheckpointSettings(**settings), signals, None, lambda: clock[0])
    trainer: Any = FakeTrainer()
    callback.on_train_start(trainer, trainer)
    return callback, trainer, clock, signals


def train(callback: CheckpointCallback, trainer: Any, steps: int, seconds: float = 0.0, clock: Any = None) -> None:
    """`steps` optimizer steps, each of two batches."""
    for _ in range(steps):
        for batch_idx in (2 * trainer.global_step, 2 * trainer.global_step + 1):
            callback.on_train_batch_start(trainer, trainer, None, batch_idx)
        trainer.global_step += 1
        if clock:
            clock[0] += seconds
    callback.on_train_batch_start(trainer, trainer, None, 2 * trainer.global_step)


def names(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in Run(tmp_path).checkpoints.iterdir())


def test_every_n_steps_and_the_newest_few_stay(tmp_path: Path) -> None:
    callback, trainer, _, _ = saver(tmp_path, every_n_steps=3, keep=2)
    train(callback, trainer, 10)
    assert trainer.written == [("last.ckpt", 3), ("last.ckpt", 6), ("last.ckpt", 9)]
    assert names(tmp_path) == ["last.ckpt", "step-0000006.ckpt", "step-0000009.ckpt"]
    assert Run(tmp_path).numbered(6).read_text() == "6"
    assert Run(tmp_path).last.stat().st_ino == Run(tmp_path).numbered(9).stat().st_ino  # no second copy on disk


def test_nothing_is_written_before_anything_was_updated(tmp_path: Path) -> None:
    callback, trainer, _, _ = saver(tmp_path, every_n_steps=1)
    trainer.optimizers[0].state.clear()
    train(callback, trainer, 3)
    assert trainer.written == []


def test_keep_0_leaves_only_last(tmp_path: Path) -> None:
    callback, trainer, _, _ = saver(tmp_path, every_n_steps=1, keep=0)
    train(callback, trainer, 3)
    assert names(tmp_path) == ["last.ckpt"]


def test_every_n_minutes(tmp_path: Path) -> None:
    callback, trainer, clock, _ = saver(tmp_path, every_n_minutes=1.0)
    train(callback, trainer, 7, 25.0, clock)
    assert trainer.written == [("last.ckpt", 3), ("last.ckpt", 6)]


def test_every_n_epochs_and_at_the_end_of_training_without_writing_twice(tmp_path: Path) -> None:
    callback, trainer, _, _ = saver(tmp_path, every_n_epochs=2, every_n_minutes=None)
    for epoch in range(3):
        trainer.current_epoch = epoch
        train(callback, trainer, 4)
        callback.on_train_epoch_end(trainer, trainer)
    callback.on_train_end(trainer, trainer)
    assert trainer.written == [("last.ckpt", 8), ("last.ckpt", 12)]
    assert names(tmp_path) == ["last.ckpt", "step-0000008.ckpt"]


def test_best_is_the_lowest_validation_loss_also_after_going_on(tmp_path: Path) -> None:
    callback, trainer, _, _ = saver(tmp_path)
    for step, loss in enumerate([float("nan"), 2.0, 3.0, float("nan"), 1.0]):  # one that is none beats nothing
        trainer.global_step, trainer.callback_metrics["val/loss"] = step, loss
        callback.on_validation_start(trainer, trainer)
        callback.on_validation_end(trainer, trainer)
    assert trainer.written == [("best.ckpt", 1), ("best.ckpt", 4)]
    resumed = CheckpointCallback(Run(tmp_path), CheckpointSettings(), Signals(), None)
    resumed.load_state_dict(callback.state_dict())
    trainer.callback_metrics["val/loss"] = 1.5
    resumed.on_validation_start(trainer, trainer)
    resumed.on_validation_end(trainer, trainer)
    assert len(trainer.written) == 2


def test_a_validation_of_its_own_writes_nothing(tmp_path: Path) -> None:
    callback, trainer, _, _ = saver(tmp_path)
    trainer.state.fn, trainer.callback_metrics["val/loss"] = "validate", 1.0
    callback.on_validation_start(trainer, trainer)
    callback.on_validation_batch_start(trainer, trainer, None, 0)
    callback.on_validation_end(trainer, trainer)
    assert trainer.written == []


def test_a_signal_saves_once_at_the_border_of_a_step_and_then_stops(tmp_path: Path) -> None:
    callback, trainer, _, signals = saver(tmp_path)
    train(callback, trainer, 2)
    signals.received = 15
    callback.on_train_batch_start(trainer, trainer, None, 5)  # in the middle of accumulation: not yet
    with pytest.raises(Stopped) as stopped:
        callback.on_train_batch_start(trainer, trainer, None, 6)
    assert stopped.value.exit_code == 143
    assert stopped.value.together
    assert trainer.written == [("last.ckpt", 2)]


@pytest.mark.parametrize("name", ["every_n_steps", "every_n_epochs", "every_n_minutes", "keep"])
def test_what_cannot_be_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=rf"checkpoint\.{name}"):
        CheckpointSettings(**{name: -1})
