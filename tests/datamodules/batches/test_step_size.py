from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from datamodules.batches.packing import best_fit
from datamodules.batches.plan import StepSize, plan_epoch
from datamodules.batches.step_size import Epochs, check_tokens_per_step, cut
from errors import UserError

ROWS = np.random.default_rng(0).integers(20, 300, 1000)


def epochs(plain: StepSize, packing: Any = "packed", lengths: np.ndarray = ROWS, **changed: Any) -> Epochs:
    given: dict[str, Any] = {"max_length": 512, "tokens_per_step": None, "device": "cpu", "seed": 0}
    return cut(lengths, lengths * 3 // 4, plain, packing, **given | changed)


def test_packing_keeps_the_tokens_of_an_unpacked_step() -> None:
    plain = StepSize(4, 4, 4)
    packed, unpacked = epochs(plain), epochs(plain, "none")
    assert packed.steps == round(1000 / 64)
    assert unpacked.steps == packed.steps_unpacked == 16
    assert packed.tokens[1] == pytest.approx((ROWS * 3 // 4).sum() / 1000 * 64, rel=1 / packed.steps)
    assert max(packed.tokens) - min(packed.tokens) <= 512


@pytest.mark.parametrize("tokens_per_step", [1500, 5000, 7000])
def test_the_tokens_asked_for_decide_the_steps(tokens_per_step: int) -> None:
    packed = epochs(StepSize(8, 4), tokens_per_step=tokens_per_step)
    assert packed.steps == round((ROWS * 3 // 4).sum() / tokens_per_step)
    assert max(abs(tokens - tokens_per_step) for tokens in packed.tokens) < 512


@given(
    st.lists(st.integers(1, 512), min_size=1, max_size=100).map(np.array), st.integers(1, 5), st.integers(1, 4),
    st.integers(1, 4),
)  # fmt: skip
@example(np.full(9, 400), 2, 2, 2)  # 9 packs where the mean would have one step of 8
def test_without_a_number_asked_for_batches_hold_their_packs(
    lengths: np.ndarray, batch_size: int, accumulate: int, world_size: int
) -> None:
    """Whatever the rows, so that the default is never refused; but for steps of less than a pack, on which auto does
    not insist."""
    plain = StepSize(batch_size, accumulate, world_size)
    found = epochs(plain, "auto", lengths, device="cuda")
    if found.sizes.packing == "none":
        packs = best_fit(lengths, 512, np.arange(len(lengths)))[1]
        assert round(len(lengths) / plain.rows_per_step) > packs
        assert "less than one packed row" in found.line()
        with pytest.raises(UserError, match=r"an optimizer step of .* is less than one packed row"):
            epochs(plain, "packed", lengths)
    plan = plan_epoch(lengths, lengths, found.sizes, 0, 1)
    assert len(plan) == found.steps * accumulate


def test_auto_goes_by_the_device() -> None:
    assert epochs(StepSize(4), "auto", device="cuda").sizes.packing == "packed"
    assert epochs(StepSize(4), "auto").sizes == StepSize(4)
    assert "not packed (auto: on a CPU" in epochs(StepSize(4), "auto").line()


def test_the_line_says_steps_with_and_without_packing_and_how_full() -> None:
    found = epochs(StepSize(4, 4, 4))
    line = found.line()
    assert f"data: packed, 1,000 rows in {found.packs:,} of 512 tokens, {100 * found.filled:.1f}% full" in line
    assert found.filled == pytest.approx(ROWS.sum() / found.packs / 512)
    assert f"{found.steps:,} optimizer steps an epoch of {found.tokens[1]:,} supervised tokens" in line
    assert "16 steps without packing" in line
    assert found.figures()["packing_efficiency"] == found.filled


def test_the_line_names_the_accumulation_that_would_do_and_it_does() -> None:
    """Rows of 160 tokens on average: 64 of them are 20 packs, which two batches of 4 on 4 devices hold."""
    found = epochs(StepSize(4, 4, 4))
    assert f"trainer.accumulate_grad_batches 2 with data.tokens_per_step {found.tokens[1]} would hold" in found.line()
    fewer = epochs(StepSize(4, 2, 4), tokens_per_step=found.tokens[1])
    assert (fewer.steps, fewer.packs) == (found.steps, found.packs)
    assert "would hold" not in fewer.line()


@pytest.mark.parametrize("fixed", ["accumulate", "batch_size", "tokens_per_step"])
def test_steps_that_batches_cannot_hold_are_refused_and_each_way_out_works(fixed: str) -> None:
    with pytest.raises(UserError) as refused:
        epochs(StepSize(2, 2, 2), tokens_per_step=9000)
    said = str(refused.value)
    packs, steps = epochs(StepSize(99)).packs, round((ROWS * 3 // 4).sum() / 9000)
    most = -(-packs // steps)
    assert f"data.tokens_per_step: '9000' takes {most} packed rows a step" in said
    accumulate, batch_size, tokens = -(-most // 4), -(-most // 4), (ROWS * 3 // 4).sum() // -(-packs // 8)
    assert (
        f"Set trainer.accumulate_grad_batches {accumulate}, or data.batch_size {batch_size}, "
        f"or data.tokens_per_step {tokens}"
    ) in said
    ways = {
        "accumulate": (StepSize(2, accumulate, 2), 9000),
        "batch_size": (StepSize(batch_size, 2, 2), 9000),
        "tokens_per_step": (StepSize(2, 2, 2), int(tokens)),
    }
    sizes, wanted = ways[fixed]
    assert epochs(sizes, tokens_per_step=wanted).steps > 0


def test_less_than_a_pack_is_refused_and_the_way_out_works() -> None:
    with pytest.raises(UserError, match=r"data\.tokens_per_step: '100' is less than one packed row") as refused:
        epochs(StepSize(4), tokens_per_step=100)
    least = int(str(refused.value).partition("Give ")[2].split()[0])
    found = epochs(StepSize(4), tokens_per_step=least)
    assert found.steps <= found.packs


@pytest.mark.parametrize(
    ("packing", "tokens", "words"),
    [("packed", 0, "is below 1"), ("none", 9, "data.packing is none"), ("grouped", 9, "data.packing is grouped")],
)
def test_numbers_that_nothing_would_go_by_are_refused(packing: Any, tokens: int, words: str) -> None:
    with pytest.raises(UserError, match=words):
        check_tokens_per_step(packing, tokens)
    check_tokens_per_step(packing, None)


def test_nor_may_auto_ignore_them() -> None:
    with pytest.raises(UserError, match=r"data\.tokens_per_step: '900' is for rows that are packed, and on a CPU"):
        epochs(StepSize(4), "auto", tokens_per_step=900)
