"""A fit resumes at the optimizer step where the checkpoint stands, or says what is not exact."""

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamodules.batches.plan import StepSize
from lightning_modules.checkpoints.resume_position import ResumePosition

FOUR = StepSize(batch_size=4, accumulate=4, world_size=4)
PACKED = StepSize(4, 4, 4, "packed", 512, 50)


def data(steps_per_epoch: int, sizes: StepSize) -> Any:
    """A data module with these sizes."""
    return SimpleNamespace(steps_per_epoch=steps_per_epoch, sizes=lambda: sizes)


def position(epoch: int, step: int, global_step: int, due: bool, steps: int, sizes: StepSize) -> ResumePosition:
    examples = sizes.rows_of_a_step
    return ResumePosition(epoch, step, global_step, due, steps, sizes.accumulate, examples, sizes.described())


def trainer_after(batches: int, global_step: int = 0) -> Any:
    progress = SimpleNamespace(total=SimpleNamespace(processed=batches))
    return SimpleNamespace(
        fit_loop=SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=progress)), global_step=global_step
    )


@given(batches=st.integers(0, 500), accumulate=st.integers(1, 5), steps=st.integers(1, 20))
def test_a_position_is_the_last_complete_optimizer_step(batches: int, accumulate: int, steps: int) -> None:
    found = ResumePosition.of(trainer_after(batches), data(steps, StepSize(1, accumulate)), in_validation=True)
    done = (found.epoch * steps + found.step) * accumulate
    assert batches - accumulate < done <= batches
    assert found.step < steps
    assert found.validation_due == (batches % accumulate == 0)  # else the step is repeated before its validation
    assert ResumePosition.from_dict(found.to_dict()) == found


@pytest.mark.parametrize("sizes", [FOUR, PACKED])
def test_the_same_steps_resume_exactly(sizes: StepSize) -> None:
    at = position(1, 7, 57, True, 50, sizes)
    assert at.carried_over(data(50, sizes)) == (at, None)


@pytest.mark.parametrize("sizes", [StepSize(4, 8, 2), StepSize(8, 2, 4), StepSize(4, 16, 1), StepSize(1, 64, 1)])
def test_the_same_rows_per_step_on_other_devices_resume_at_the_same_step(sizes: StepSize) -> None:
    moved, note = position(1, 7, 57, True, 50, FOUR).carried_over(data(50, sizes))
    assert moved == position(1, 7, 57, True, 50, sizes)
    assert note is not None and "up to rounding" in note


def test_other_steps_start_the_epoch_again_or_the_next_one() -> None:
    fewer = StepSize(4, 2, 4)
    moved, note = position(1, 7, 57, True, 50, FOUR).carried_over(data(100, fewer))
    assert moved == position(1, 0, 57, False, 100, fewer)
    assert note is not None
    assert "50 steps an epoch, now 100: epoch 2 starts again, so the rows of its first 7 steps are seen twice" in note
    moved, note = position(1, 0, 50, False, 50, FOUR).carried_over(data(100, fewer))
    assert (moved.epoch, moved.step) == (1, 0)
    assert note is not None and "seen twice" not in note


@pytest.mark.parametrize(
    "other",
    [FOUR, StepSize(4, 4, 4, "packed", 512, 60), StepSize(4, 4, 4, "packed", 1024, 50)],
)
def test_other_packing_starts_the_epoch_again_and_is_named(other: StepSize) -> None:
    """Even if limit_train_batches gives it the same number of steps."""
    moved, note = position(1, 7, 57, True, 50, PACKED).carried_over(data(50, other))
    assert (moved.step, moved.sizes) == (0, other.described())
    assert note is not None
    assert f"written with {PACKED.described()}, now {other.described()}, 50 steps an epoch, now 50" in note
    assert "epoch 2 starts again" in note


def test_the_same_packed_steps_resume_on_other_devices() -> None:
    fewer = StepSize(8, 8, 1, "packed", 512, 50)
    moved, note = position(1, 7, 57, True, 50, PACKED).carried_over(data(50, fewer))
    assert moved == position(1, 7, 57, True, 50, fewer)
    assert note is not None and "up to rounding" in note


def test_lightnings_counters_follow_the_position() -> None:
    from lightning.pytorch import Trainer

    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    loop = trainer.fit_loop.state_dict()
    checkpoint: dict[str, Any] = {"loops": {"fit_loop": loop}, "lr_schedulers": [{"last_epoch": 0}]}
    position(2, 3, 23, False, 10, FOUR).apply_to(checkpoint)
    assert loop["epoch_progress"]["current"] == {"ready": 3, "started": 3, "processed": 2, "completed": 2}
    assert set(loop["epoch_loop.batch_progress"]["total"].values()) == {23 * 4}
    assert set(loop["epoch_loop.batch_progress"]["current"].values()) == {3 * 4}
    assert checkpoint["lr_schedulers"][0]["last_epoch"] == 23
    position(2, 0, 20, False, 10, FOUR).apply_to(checkpoint)
    assert set(loop["epoch_progress"]["current"].values()) == {2}  # the third epoch has not started
