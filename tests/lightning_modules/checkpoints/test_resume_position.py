from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamodules.batches.plan import StepSize
from lightning_modules.checkpoints.resume_position import ResumePosition

FOUR = StepSize(batch_size=4, accumulate=4, world_size=4)


def trainer_after(batches: int, global_step: int = 0) -> Any:
    progress = SimpleNamespace(total=SimpleNamespace(processed=batches))
    return SimpleNamespace(
        fit_loop=SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=progress)), global_step=global_step
    )


@given(batches=st.integers(0, 500), accumulate=st.integers(1, 5), steps=st.integers(1, 20))
def test_a_position_is_the_last_optimizer_step_that_was_done(batches: int, accumulate: int, steps: int) -> None:
    sizes = StepSize(1, accumulate)
    found = ResumePosition.of(trainer_after(batches), steps, sizes, in_validation=True)
    done = (found.epoch * steps + found.step) * accumulate
    assert batches - accumulate < done <= batches
    assert found.step < steps
    assert found.validation_due == (batches % accumulate == 0)  # else the step is done again before its validation
    assert ResumePosition.from_dict(found.to_dict()) == found


def test_the_same_epochs_are_gone_on_with_exactly() -> None:
    at = ResumePosition(1, 7, 57, True, 50, FOUR)
    assert at.carried_over(50, FOUR) == (at, None)


@pytest.mark.parametrize("sizes", [StepSize(4, 8, 2), StepSize(8, 2, 4), StepSize(4, 16, 1), StepSize(1, 64, 1)])
def test_the_same_rows_a_step_on_other_devices_go_on_at_the_same_step(sizes: StepSize) -> None:
    moved, note = ResumePosition(1, 7, 57, True, 50, FOUR).carried_over(50, sizes)
    assert moved == ResumePosition(1, 7, 57, True, 50, sizes)
    assert note is not None and "up to rounding" in note


def test_other_steps_begin_the_epoch_anew_or_the_next_one() -> None:
    fewer = StepSize(4, 2, 4)
    moved, note = ResumePosition(1, 7, 57, True, 50, FOUR).carried_over(100, fewer)
    assert moved == ResumePosition(1, 0, 57, False, 100, fewer)
    assert note is not None
    assert "50 steps an epoch, now 100: epoch 2 begins anew, so the rows of its first 7 steps are seen again" in note
    moved, note = ResumePosition(1, 0, 50, False, 50, FOUR).carried_over(100, fewer)
    assert (moved.epoch, moved.step) == (1, 0)
    assert note is not None and "seen again" not in note


PACKED = StepSize(4, 4, 4, "packed", 512, 50)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (FOUR, "4 packs of 512 tokens x 4 accumulated x 4 devices, now 4 rows x 4 accumulated x 4 devices, 50 steps"),
        (StepSize(4, 4, 4, "packed", 512, 60), "4 packs of 512 tokens"),
        (StepSize(4, 4, 4, "packed", 1024, 50), "4 packs of 512 tokens x 4 accumulated x 4 devices, now 4 packs of 1,024 "
         "tokens x 4 accumulated x 4 devices"),
    ],
)  # fmt: skip
def test_other_packing_begins_the_epoch_anew_and_is_named(other: StepSize, words: str) -> None:
    """Even where limit_train_batches makes as many steps of it."""
    moved, note = ResumePosition(1, 7, 57, True, 50, PACKED).carried_over(50, other)
    assert (moved.step, moved.sizes) == (0, other)
    assert note is not None and words in note and "epoch 2 begins anew" in note
    assert ResumePosition.from_dict(ResumePosition(1, 7, 57, True, 50, PACKED).to_dict()).sizes == PACKED


def test_the_same_packed_steps_go_on_on_other_devices() -> None:
    fewer = StepSize(8, 8, 1, "packed", 512, 50)
    moved, note = ResumePosition(1, 7, 57, True, 50, PACKED).carried_over(50, fewer)
    assert moved == ResumePosition(1, 7, 57, True, 50, fewer)
    assert note is not None and "up to rounding" in note


def checkpoint_of_lightning() -> dict[str, Any]:
    """The loops of a Trainer that has done nothing, as this version of Lightning writes them."""
    from lightning.pytorch import Trainer

    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    return {"loops": {"fit_loop": trainer.fit_loop.state_dict()}, "lr_schedulers": [{"last_epoch": 0}]}


def test_lightnings_counters_are_set_to_the_position() -> None:
    checkpoint = checkpoint_of_lightning()
    ResumePosition(2, 3, 23, False, 10, FOUR).apply_to(checkpoint)
    loop = checkpoint["loops"]["fit_loop"]
    assert loop["epoch_progress"]["current"] == {"ready": 3, "started": 3, "processed": 2, "completed": 2}
    batches = loop["epoch_loop.batch_progress"]
    assert set(batches["total"].values()) == {23 * 4}
    assert set(batches["current"].values()) == {3 * 4}
    assert not batches["is_last_batch"]
    step = loop["epoch_loop.automatic_optimization.optim_progress"]["optimizer"]["step"]
    assert set(step["total"].values()) == {23}
    assert checkpoint["lr_schedulers"][0]["last_epoch"] == 23
    ResumePosition(2, 0, 20, False, 10, FOUR).apply_to(checkpoint)
    assert set(loop["epoch_progress"]["current"].values()) == {2}  # the third is not begun
