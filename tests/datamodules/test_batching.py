from itertools import chain

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamodules.batching import Sizes, plan_epoch, plan_evaluation, steps_per_epoch

SIZES = st.builds(Sizes, st.integers(1, 5), st.integers(1, 4), st.integers(1, 4))
LENGTHS = st.lists(st.integers(1, 500), min_size=1, max_size=120).map(np.array)


@given(LENGTHS, SIZES, st.integers(0, 3), st.integers(0, 3))
def test_every_row_is_planned_once_and_every_rank_has_as_many_batches(
    lengths: np.ndarray, sizes: Sizes, seed: int, epoch: int
) -> None:
    plan = plan_epoch(lengths, lengths - 1, sizes, seed, epoch)
    rows = [row for batch in plan.batches for share in batch for row in share.rows]
    assert sorted(rows) == list(range(len(lengths)))
    assert all(len(batch) == sizes.world_size for batch in plan.batches)
    assert len(plan) == steps_per_epoch(len(lengths), sizes) * sizes.accumulate
    assert all(len(share.rows) <= sizes.batch_size for batch in plan.batches for share in batch)


@given(LENGTHS, SIZES)
def test_a_batch_knows_the_supervised_tokens_of_its_whole_step(lengths: np.ndarray, sizes: Sizes) -> None:
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

    def steps(sizes: Sizes) -> list[set[int]]:
        plan = plan_epoch(lengths, lengths, sizes, seed=1, epoch=2)
        shares = [[row for share in batch for row in share.rows] for batch in plan.batches]
        return [
            set(chain.from_iterable(shares[i : i + sizes.accumulate])) for i in range(0, len(shares), sizes.accumulate)
        ]

    assert steps(Sizes(2, accumulate, world_size)) == steps(Sizes(2 * accumulate * world_size))


def test_plans_differ_by_seed_and_epoch_and_by_nothing_else() -> None:
    lengths = np.arange(1, 65)
    plans = {(seed, epoch): plan_epoch(lengths, lengths, Sizes(4), seed, epoch) for seed in (0, 1) for epoch in (0, 1)}
    assert len({plan.batches for plan in plans.values()}) == 4
    assert plans[0, 1] == plan_epoch(lengths, lengths, Sizes(4), 0, 1)


def test_rows_of_a_batch_are_of_like_length() -> None:
    lengths = np.random.default_rng(0).integers(1, 500, 640)
    plan = plan_epoch(lengths, lengths, Sizes(4, 16), seed=0, epoch=0)
    padded = sum(int(lengths[list(share.rows)].max()) * len(share.rows) for batch in plan.batches for share in batch)
    assert padded < 1.1 * lengths.sum()


@pytest.mark.parametrize(
    ("rows", "batch_size", "world_size"), [(10, 4, 1), (10, 4, 3), (1, 4, 2), (8, 2, 4), (7, 3, 2)]
)
def test_evaluation_sees_every_row_once_over_all_ranks(rows: int, batch_size: int, world_size: int) -> None:
    plans = [plan_evaluation(rows, batch_size, rank, world_size) for rank in range(world_size)]
    assert sorted(row for plan in plans for batch in plan for row in batch) == list(range(rows))
    assert len({len(plan) for plan in plans}) == 1
