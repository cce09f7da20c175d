"""When checkpoints are written, and which ones stay."""

import os
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from errors import UserError
from lightning_modules.checkpoints.checkpoint_callback import CheckpointCallback, CheckpointSettings
from lightning_modules.checkpoints.checkpoint_file import write_checkpoint
from lightning_modules.checkpoints.content import CheckpointContent
from lightning_modules.run.folder import Run
from lightning_modules.run.signals import Signals, Stopped


class FakeTrainer(SimpleNamespace):
    """Counts steps and writes files with the step in them."""

    def __init__(self) -> None:
        super().__init__(
            global_step=0, current_epoch=0, accumulate_grad_batches=2, world_size=1, is_global_zero=True,
            callback_metrics={}, sanity_checking=False, enable_validation=False, state=SimpleNamespace(fn="fit"),
            optimizers=[SimpleNamespace(state={"a parameter": "its moments"})],
        )  # fmt: skip
        self.written: list[tuple[str, int]] = []

    def save_checkpoint(self, path: Path) -> None:
        self.written.append((path.name, self.global_step))
        scratch = path.with_suffix(".tmp")
        scratch.write_text(str(self.global_step))
        os.replace(scratch, path)


def started(tmp_path: Path, **settings: Any) -> tuple[CheckpointCallback, Any, list[float], Signals]:
    clock, signals = [0.0], Signals()
    Run(tmp_path).checkpoints.mkdir(parents=True, exist_ok=True)
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


def test_every_n_train_steps_and_the_newest_ones_stay(tmp_path: Path) -> None:
    callback, trainer, _, _ = started(tmp_path, every_n_train_steps=3, save_total_limit=2)
    train(callback, trainer, 10)
    assert trainer.written == [("last.ckpt", 3), ("last.ckpt", 6), ("last.ckpt", 9)]
    assert names(tmp_path) == ["last.ckpt", "step-0000006.ckpt", "step-0000009.ckpt"]
    assert Run(tmp_path).numbered(6).read_text() == "6"
    assert Run(tmp_path).last.stat().st_ino == Run(tmp_path).numbered(9).stat().st_ino  # no second copy on disk


def test_nothing_is_written_before_the_first_update(tmp_path: Path) -> None:
    callback, trainer, _, _ = started(tmp_path, every_n_train_steps=1)
    trainer.optimizers[0].state.clear()
    train(callback, trainer, 3)
    assert trainer.written == []


def test_a_limit_of_0_leaves_only_last(tmp_path: Path) -> None:
    callback, trainer, _, _ = started(tmp_path, every_n_train_steps=1, save_total_limit=0)
    train(callback, trainer, 3)
    assert names(tmp_path) == ["last.ckpt"]


def test_every_n_minutes(tmp_path: Path) -> None:
    callback, trainer, clock, _ = started(tmp_path, every_n_minutes=1.0)
    train(callback, trainer, 7, 25.0, clock)
    assert trainer.written == [("last.ckpt", 3), ("last.ckpt", 6)]


def test_each_epoch_ends_with_a_checkpoint_that_is_not_written_again_at_the_end(tmp_path: Path) -> None:
    callback, trainer, _, _ = started(tmp_path, every_n_minutes=None)
    for epoch in range(3):
        trainer.current_epoch = epoch
        train(callback, trainer, 4)
        callback.on_train_epoch_end(trainer, trainer)
    callback.on_train_end(trainer, trainer)
    assert trainer.written == [("last.ckpt", 4), ("last.ckpt", 8), ("last.ckpt", 12)]
    assert names(tmp_path) == ["last.ckpt", "step-0000008.ckpt", "step-0000012.ckpt"]


def test_a_checkpoint_that_no_fit_has_written_cannot_be_resumed(tmp_path: Path, content: CheckpointContent) -> None:
    saved = replace(content, resume_position=None, data=None)
    callback = CheckpointCallback(Run(tmp_path), CheckpointSettings(), Signals(), saved)
    trainer: Any = FakeTrainer()
    callback.setup(trainer, trainer, "validate")
    with pytest.raises(UserError, match="holds no position in a fit"):
        callback.setup(trainer, trainer, "fit")


def test_best_is_the_lowest_validation_loss_also_after_a_resume(tmp_path: Path) -> None:
    callback, trainer, _, _ = started(tmp_path)
    for step, loss in enumerate([float("nan"), 2.0, 3.0, float("nan"), 1.0]):  # NaN is never the lowest
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


def test_a_validation_outside_a_fit_writes_nothing(tmp_path: Path) -> None:
    callback, trainer, _, _ = started(tmp_path)
    trainer.state.fn, trainer.callback_metrics["val/loss"] = "validate", 1.0
    callback.on_validation_start(trainer, trainer)
    callback.on_validation_batch_start(trainer, trainer, None, 0)
    callback.on_validation_end(trainer, trainer)
    assert trainer.written == []


def test_a_signal_saves_once_after_the_optimizer_step_and_then_stops(tmp_path: Path) -> None:
    callback, trainer, _, signals = started(tmp_path)
    train(callback, trainer, 2)
    signals.received = 15
    callback.on_train_batch_start(trainer, trainer, None, 5)  # in the middle of an optimizer step
    with pytest.raises(Stopped) as stopped:
        callback.on_train_batch_start(trainer, trainer, None, 6)
    assert stopped.value.exit_code == 143
    assert stopped.value.together
    assert trainer.written == [("last.ckpt", 2)]


class RealFiles(FakeTrainer):
    """Writes checkpoints that can be read."""

    def __init__(self, content: dict[str, Any]) -> None:
        super().__init__()
        self.content = content
        self.strategy = SimpleNamespace(broadcast=lambda value: value)

    def save_checkpoint(self, path: Path) -> None:
        write_checkpoint(self.content | {"global_step": self.global_step}, path)


def resumed(
    tmp_path: Path, checkpoint: dict[str, Any], content: CheckpointContent, step: int, chosen: Path | None
) -> tuple[CheckpointCallback, Any]:
    """A fit from a checkpoint of step `step`, whose best loss so far was 2.0, with at most two numbered files."""
    settings = CheckpointSettings(every_n_train_steps=2, save_total_limit=2)
    callback = CheckpointCallback(Run(tmp_path), settings, Signals(), None, chosen=chosen)
    assert content.resume_position is not None
    callback._resume = replace(content.resume_position, global_step=step, validation_due=False)
    callback.load_state_dict({"best": 2.0})
    trainer: Any = RealFiles(checkpoint)
    trainer.global_step = step
    callback.on_fit_start(trainer, trainer)
    callback.on_train_start(trainer, trainer)
    return callback, trainer


def test_going_on_from_an_older_step_deletes_only_older_files_of_its_own_branch(
    tmp_path: Path, checkpoint: dict[str, Any], content: CheckpointContent
) -> None:
    run = Run(tmp_path)
    for step in (2, 6, 8):  # save_total_limit was higher
        write_checkpoint(checkpoint | {"global_step": step}, run.numbered(step))
    callback, trainer = resumed(tmp_path, checkpoint, content, 2, run.numbered(2))
    train(callback, trainer, 2)
    assert names(tmp_path) == ["last.ckpt", "step-0000002.ckpt", "step-0000004.ckpt"]
    train(callback, trainer, 2)
    assert names(tmp_path) == ["last.ckpt", "step-0000004.ckpt", "step-0000006.ckpt"]
    (aside,) = (tmp_path / "set-aside").iterdir()
    assert sorted(path.name for path in aside.iterdir()) == ["step-0000006.ckpt", "step-0000008.ckpt"]


@pytest.mark.parametrize("kept", [False, True])
def test_a_checkpoint_from_elsewhere_brings_no_best_loss_without_its_file(
    kept: bool, tmp_path: Path, checkpoint: dict[str, Any], content: CheckpointContent
) -> None:
    """Else a new run would have no best.ckpt until it is better than another run's."""
    if kept:
        write_checkpoint(checkpoint, Run(tmp_path).best)
    callback, _ = resumed(tmp_path, checkpoint, content, 2, None)
    assert callback.best == (2.0 if kept else None)


def test_a_run_whose_folder_vanished_gets_no_new_one(tmp_path: Path) -> None:
    """It would have checkpoints without the run's config."""
    callback, trainer, _, _ = started(tmp_path / "run", every_n_train_steps=1)
    shutil.rmtree(tmp_path / "run")
    with pytest.raises(UserError, match=r"run\.root: .*run' does not exist any more"):
        train(callback, trainer, 2)
    assert not (tmp_path / "run").exists()
