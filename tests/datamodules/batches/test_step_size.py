from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from datamodules.batches.packing import best_fit
from datamodules.batches.plan import StepSize, plan_epoch
from datamodules.batches.step_size import EpochLayout, check_tokens_per_step, plan_step_size
from errors import UserError

LENGTHS = np.random.default_rng(0).integers(20, 300, 1000)


def layout(unpacked: StepSize, packing: Any = "packed", lengths: np.ndarray = LENGTHS, **changed: Any) -> EpochLayout:
    given: dict[str, Any] = {"max_length": 512, "tokens_per_step": None, "device": "cpu", "seed": 0}
    return plan_step_size(lengths, lengths * 3 // 4, unpacked, packing, **given | changed)


def test_packing_keeps_the_tokens_of_an_unpacked_step() -> None:
    size = StepSize(4, 4, 4)
    packed, unpacked = layout(size), layout(size, "none")
    assert packed.steps == round(1000 / 64)
    assert unpacked.steps == packed.steps_unpacked == 16
    assert packed.tokens_per_step[1] == pytest.approx((LENGTHS * 3 // 4).sum() / 1000 * 64, rel=1 / packed.steps)
    assert max(packed.tokens_per_step) - min(packed.tokens_per_step) <= 512


@pytest.mark.parametrize("tokens_per_step", [1500, 5000, 7000])
def test_tokens_per_step_decides_the_number_of_steps(tokens_per_step: int) -> None:
    packed = layout(StepSize(8, 4), tokens_per_step=tokens_per_step)
    assert packed.steps == round((LENGTHS * 3 // 4).sum() / tokens_per_step)
    assert max(abs(tokens - tokens_per_step) for tokens in packed.tokens_per_step) < 512


@given(
    st.lists(st.integers(1, 512), min_size=1, max_size=100).map(np.array), st.integers(1, 5), st.integers(1, 4),
    st.integers(1, 4),
)  # fmt: skip
@example(np.full(9, 400), 2, 2, 2)  # 9 packs; by the mean of the unpacked steps there would be one step of 8
def test_the_default_number_of_steps_always_suits_the_micro_batches(
    lengths: np.ndarray, batch_size: int, accumulate: int, world_size: int
) -> None:
    """If a step would be less than one pack, `auto` does not pack and `packed` is refused."""
    unpacked = StepSize(batch_size, accumulate, world_size)
    found = layout(unpacked, "auto", lengths, device="cuda")
    if found.step_size.packing == "none":
        packs = best_fit(lengths, 512, np.arange(len(lengths)))[1]
        assert round(len(lengths) / unpacked.step_capacity) > packs
        assert "less than one pack" in found.line()
        with pytest.raises(UserError, match=r"an optimizer step of .* is less than one pack"):
            layout(unpacked, "packed", lengths)
    plan = plan_epoch(lengths, lengths, found.step_size, 0, 1)
    assert len(plan) == found.steps * accumulate


def test_auto_packs_on_a_gpu_only() -> None:
    assert layout(StepSize(4), "auto", device="cuda").step_size.packing == "packed"
    assert layout(StepSize(4), "auto").step_size == StepSize(4)
    assert "not packed (auto: on a CPU" in layout(StepSize(4), "auto").line()


def test_the_line_has_the_steps_with_and_without_packing_and_the_fill() -> None:
    found = layout(StepSize(4, 4, 4))
    line = found.line()
    assert f"data: packed, 1,000 rows in {found.packs:,} packs of 512 tokens, {100 * found.fill:.1f}% full" in line
    assert found.fill == pytest.approx(LENGTHS.sum() / found.packs / 512)
    assert f"{found.steps:,} optimizer steps per epoch, {found.tokens_per_step[1]:,} supervised tokens each" in line
    assert "16 steps without packing" in line
    assert found.figures()["packing_efficiency"] == found.fill


def test_the_line_names_an_accumulation_that_is_enough() -> None:
    """64 examples of 160 tokens on average make 20 packs; two micro-batches of 4 packs on 4 devices hold them."""
    found = layout(StepSize(4, 4, 4))
    tokens = found.tokens_per_step[1]
    assert f"trainer.accumulate_grad_batches 2 with data.tokens_per_step {tokens} is enough" in found.line()
    fewer = layout(StepSize(4, 2, 4), tokens_per_step=tokens)
    assert (fewer.steps, fewer.packs) == (found.steps, found.packs)
    assert "is enough" not in fewer.line()


@pytest.mark.parametrize("fixed", ["accumulate", "batch_size", "tokens_per_step"])
def test_steps_with_too_many_packs_are_refused_and_each_suggested_setting_works(fixed: str) -> None:
    with pytest.raises(UserError) as refused:
        layout(StepSize(2, 2, 2), tokens_per_step=9000)
    message = str(refused.value)
    packs, steps = layout(StepSize(99)).packs, round((LENGTHS * 3 // 4).sum() / 9000)
    most = -(-packs // steps)
    assert f"data.tokens_per_step: '9000' needs {most} packs per step" in message
    accumulate, batch_size, tokens = -(-most // 4), -(-most // 4), (LENGTHS * 3 // 4).sum() // -(-packs // 8)
    assert (
        f"Set trainer.accumulate_grad_batches {accumulate}, or data.batch_size {batch_size}, "
        f"or data.tokens_per_step {tokens}"
    ) in message
    ways = {
        "accumulate": (StepSize(2, accumulate, 2), 9000),
        "batch_size": (StepSize(batch_size, 2, 2), 9000),
        "tokens_per_step": (StepSize(2, 2, 2), int(tokens)),
    }
    size, tokens_per_step = ways[fixed]
    assert layout(size, tokens_per_step=tokens_per_step).steps > 0


def test_a_step_of_less_than_one_pack_is_refused_and_the_suggested_number_works() -> None:
    with pytest.raises(UserError, match=r"data\.tokens_per_step: '100' is less than one pack") as refused:
        layout(StepSize(4), tokens_per_step=100)
    least = int(str(refused.value).partition("Give ")[2].split()[0])
    found = layout(StepSize(4), tokens_per_step=least)
    assert found.steps <= found.packs


def test_tokens_per_step_needs_packing() -> None:
    with pytest.raises(UserError, match=r"data\.packing is none"):
        check_tokens_per_step("none", 9)
    check_tokens_per_step("none", None)


def test_auto_does_not_ignore_tokens_per_step_on_a_cpu() -> None:
    with pytest.raises(UserError, match=r"data\.tokens_per_step: '900' applies to packing only, and .* on a CPU"):
        layout(StepSize(4), "auto", tokens_per_step=900)
