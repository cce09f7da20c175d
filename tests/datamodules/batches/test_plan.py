from dataclasses import replace
from itertools import chain, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamodules.batches.packing import best_fit
from datamodules.batches.plan import EpochPlan, StepSize, plan_epoch, plan_evaluation, steps_per_epoch

SIZES = st.builds(
    StepSize, st.integers(1, 5), st.integers(1, 4), st.integers(1, 4), st.sampled_from(["none", "grouped"])
)
LENGTHS = st.lists(st.integers(1, 500), min_size=1, max_size=120).map(np.array)


@st.composite
def packed(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, StepSize]:
    """Lengths, supervised tokens, and sizes that packs of 500 tokens suit."""
    lengths = draw(LENGTHS)
    supervised = np.array([draw(st.integers(1, length)) for length in lengths.tolist()])
    plain = draw(SIZES)
    packs = best_fit(lengths, 500, np.arange(len(lengths)))[1]
    fewest = -(-packs // plain.rows_per_step)
    steps = draw(st.integers(fewest, packs))
    return lengths, supervised, replace(plain, packing="packed", pack_tokens=500, steps=steps)


def steps_of(plan: EpochPlan, sizes: StepSize) -> list[list[int]]:
    """The rows of each optimizer step."""
    batches = [[row for share in batch for row in share.rows] for batch in plan.batches]
    return [list(chain(*batches[i : i + sizes.accumulate])) for i in range(0, len(batches), sizes.accumulate)]


@given(LENGTHS, SIZES, st.integers(0, 3), st.integers(0, 3))
def test_every_row_is_planned_once_and_every_rank_has_as_many_batches(
    lengths: np.ndarray, sizes: StepSize, seed: int, epoch: int
) -> None:
    plan = plan_epoch(lengths, lengths - 1, sizes, seed, epoch)
    rows = [row for batch in plan.batches for share in batch for row in share.rows]
    assert sorted(rows) == list(range(len(lengths)))
    assert all(len(batch) == sizes.world_size for batch in plan.batches)
    assert len(plan) == steps_per_epoch(len(lengths), sizes) * sizes.accumulate
    assert all(len(share.rows) <= sizes.batch_size for batch in plan.batches for share in batch)


@given(packed(), st.integers(0, 3), st.integers(0, 3))
def test_so_it_is_when_packed_and_no_batch_holds_more_than_its_packs_would(
    case: tuple[np.ndarray, np.ndarray, StepSize], seed: int, epoch: int
) -> None:
    lengths, supervised, sizes = case
    plan = plan_epoch(lengths, supervised, sizes, seed, epoch)
    rows = [row for batch in plan.batches for share in batch for row in share.rows]
    assert sorted(rows) == list(range(len(lengths)))
    assert all(len(batch) == sizes.world_size for batch in plan.batches)
    assert len(plan) == sizes.steps * sizes.accumulate  # type: ignore[operator]
    most = max(int(lengths[list(share.rows)].sum()) for batch in plan.batches for share in batch)
    assert most <= sizes.batch_size * 500
    assert plan == plan_epoch(lengths, supervised, sizes, seed, epoch)


def test_packs_stay_together_where_their_rows_would_overfill_a_batch() -> None:
    lengths = np.array([400, 100, 100, 100, 100, 100])  # dealt one by one: 400 + 100 + 100, and 300
    (first, second) = plan_epoch(lengths, lengths, StepSize(1, 2, 1, "packed", 500, 1), 0, 0).batches
    assert {int(lengths[list(share.rows)].sum()) for share in (first[0], second[0])} == {500, 400}


@given(packed(), st.integers(0, 3))
def test_steps_of_packs_hold_as_many_supervised_tokens_and_do_not_drift(
    case: tuple[np.ndarray, np.ndarray, StepSize], epoch: int
) -> None:
    lengths, supervised, sizes = case
    plan = plan_epoch(lengths, supervised, sizes, 0, epoch)
    tokens = np.array([supervised[step].sum() for step in steps_of(plan, sizes)])
    assert tokens.min() > 0
    assert [batch[0].step_tokens for batch in plan.batches[:: sizes.accumulate]] == tokens.tolist()
    pack, packs = best_fit(lengths, 500, np.random.default_rng([0, epoch]).permutation(len(lengths)))
    largest = int(np.bincount(pack, weights=supervised, minlength=packs).max())
    assert tokens.max() - tokens.min() <= largest
    drift = np.cumsum(tokens) - np.arange(1, len(tokens) + 1) * supervised.sum() / len(tokens)
    assert np.abs(drift).max() <= largest


@given(packed(), st.integers(1, 4), st.integers(1, 3), st.integers(1, 4))
def test_the_packs_of_a_step_do_not_depend_on_how_it_is_shared(
    case: tuple[np.ndarray, np.ndarray, StepSize], accumulate: int, world_size: int, more: int
) -> None:
    lengths, supervised, one = case
    other = replace(one, batch_size=one.rows_per_step * more, accumulate=accumulate, world_size=world_size)
    first, second = (
        [set(step) for step in steps_of(plan_epoch(lengths, supervised, sizes, 1, 2), sizes)] for sizes in (one, other)
    )
    assert first == second
    assert one.rows_of_a_step == other.rows_of_a_step


def test_shares_of_a_packed_step_hold_alike() -> None:
    """10 packs on 16 batches: pack by pack, six of them would be empty."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(16, 200, 2000)
    packs = best_fit(lengths, 500, np.arange(2000))[1]
    sizes = StepSize(4, 4, 4, "packed", 500, packs // 10)
    plan = plan_epoch(lengths, lengths, sizes, 0, 0)
    held = np.array([[lengths[list(share.rows)].sum() for share in batch] for batch in plan.batches])
    assert held.reshape(-1, 16).std(axis=1).max() < 0.2 * held.mean()


@given(LENGTHS, st.integers(1, 5), st.integers(1, 4), st.integers(1, 4))
def test_grouped_batches_hold_rows_of_like_length_out_of_all(
    lengths: np.ndarray, batch_size: int, accumulate: int, world_size: int
) -> None:
    """Micro-batches, over all ranks, do not overlap in length."""
    plan = plan_epoch(lengths, lengths, StepSize(batch_size, accumulate, world_size, "grouped"), 0, 0)
    groups = [lengths[[row for share in batch for row in share.rows]] for batch in plan.batches]
    ranges = sorted((int(group.min()), int(group.max())) for group in groups if len(group))
    assert all(low[1] <= high[0] for low, high in pairwise(ranges))


def test_grouped_steps_hold_long_batches_with_short_ones() -> None:
    lengths = np.random.default_rng(0).integers(1, 500, 4096)
    sizes = StepSize(4, 8, 2, "grouped")
    tokens = [int(lengths[step].sum()) for step in steps_of(plan_epoch(lengths, lengths, sizes, 0, 0), sizes)]
    assert max(tokens) - min(tokens) <= 8 * 500
    assert np.std(tokens) < 0.1 * np.mean(tokens)


@given(LENGTHS, SIZES)
def test_a_batch_knows_the_supervised_tokens_of_its_whole_step(lengths: np.ndarray, sizes: StepSize) -> None:
    supervised = lengths // 2
    plan = plan_epoch(lengths, supervised, sizes, seed=0, epoch=0)
    for start in range(0, len(plan), sizes.accumulate):
        step = [share for batch in plan.batches[start : start + sizes.accumulate] for share in batch]
        tokens = sum(int(supervised[list(share.rows)].sum()) for share in step)
        assert {share.step_tokens for share in step} == {tokens}


@given(LENGTHS, st.integers(1, 4), st.integers(1, 3))
def test_the_rows_of_a_step_do_not_depend_on_how_it_is_shared(
    lengths: np.ndarray, accumulate: int, world_size: int
) -> None:
    """8 x accumulate x ranks rows as one batch, or in many: the same steps, in the same order."""

    def steps(sizes: StepSize) -> list[set[int]]:
        plan = plan_epoch(lengths, lengths, sizes, seed=1, epoch=2)
        shares = [[row for share in batch for row in share.rows] for batch in plan.batches]
        return [
            set(chain.from_iterable(shares[i : i + sizes.accumulate])) for i in range(0, len(shares), sizes.accumulate)
        ]

    assert steps(StepSize(2, accumulate, world_size)) == steps(StepSize(2 * accumulate * world_size))


@pytest.mark.parametrize(
    "sizes", [StepSize(4), StepSize(4, 2, 1, "grouped"), StepSize(4, 2, 1, "packed", 64, 6)], ids=str
)
def test_plans_differ_by_seed_and_epoch_and_by_nothing_else(sizes: StepSize) -> None:
    lengths = np.arange(1, 65)
    plans = {(seed, epoch): plan_epoch(lengths, lengths, sizes, seed, epoch) for seed in (0, 1) for epoch in (0, 1)}
    steps = {key: frozenset(frozenset(step) for step in steps_of(plan, sizes)) for key, plan in plans.items()}
    assert len(set(steps.values())) == 4
    assert plans[0, 1] == plan_epoch(lengths, lengths, sizes, 0, 1)


def test_rows_of_a_batch_are_of_like_length() -> None:
    lengths = np.random.default_rng(0).integers(1, 500, 640)
    plan = plan_epoch(lengths, lengths, StepSize(4, 16), seed=0, epoch=0)
    padded = sum(int(lengths[list(share.rows)].max()) * len(share.rows) for batch in plan.batches for share in batch)
    assert padded < 1.1 * lengths.sum()


@pytest.mark.parametrize(
    ("rows", "batch_size", "world_size"), [(10, 4, 1), (10, 4, 3), (1, 4, 2), (8, 2, 4), (7, 3, 2)]
)
def test_evaluation_sees_every_row_once_over_all_ranks(rows: int, batch_size: int, world_size: int) -> None:
    plans = [plan_evaluation(rows, batch_size, rank, world_size) for rank in range(world_size)]
    assert sorted(row for plan in plans for batch in plan for row in batch) == list(range(rows))
    assert len({len(plan) for plan in plans}) == 1
