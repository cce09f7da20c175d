from dataclasses import replace
from itertools import chain

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamodules.batches.packing import best_fit
from datamodules.batches.plan import EpochPlan, StepSize, plan_epoch, plan_evaluation, steps_per_epoch, tokens_of_steps

SIZES = st.builds(StepSize, st.integers(1, 5), st.integers(1, 4), st.integers(1, 4))
LENGTHS = st.lists(st.integers(1, 500), min_size=1, max_size=120).map(np.array)
Case = tuple[np.ndarray, np.ndarray, StepSize]


@st.composite
def packed(draw: st.DrawFn) -> Case:
    """Lengths, supervised tokens, and a step size that suits packs of 500 tokens."""
    lengths = draw(LENGTHS)
    supervised = np.array([draw(st.integers(1, length)) for length in lengths.tolist()])
    unpacked = draw(SIZES)
    packs = best_fit(lengths, 500, np.arange(len(lengths)))[1]
    fewest = -(-packs // unpacked.step_capacity)
    steps = draw(st.integers(fewest, packs))
    return lengths, supervised, replace(unpacked, packing="packed", pack_tokens=500, steps=steps)


def examples_of(plan: EpochPlan) -> list[int]:
    """The indices of all examples, in the order of the plan."""
    return [index for batch in plan.batches for planned in batch for index in planned.indices]


def steps_of(plan: EpochPlan, size: StepSize) -> list[list[int]]:
    """The examples of each optimizer step."""
    batches = [[index for planned in batch for index in planned.indices] for batch in plan.batches]
    return [list(chain(*batches[i : i + size.accumulate])) for i in range(0, len(batches), size.accumulate)]


@given(LENGTHS, SIZES, st.integers(0, 3), st.integers(0, 3))
def test_every_example_is_planned_once_and_every_rank_has_the_same_number_of_batches(
    lengths: np.ndarray, size: StepSize, seed: int, epoch: int
) -> None:
    plan = plan_epoch(lengths, lengths - 1, size, seed, epoch)
    assert sorted(examples_of(plan)) == list(range(len(lengths)))
    assert all(len(batch) == size.world_size for batch in plan.batches)
    assert len(plan) == steps_per_epoch(len(lengths), size) * size.accumulate
    assert all(len(planned.indices) <= size.batch_size for batch in plan.batches for planned in batch)


@given(LENGTHS, SIZES)
def test_the_micro_batches_of_a_smaller_last_step_have_nearly_equal_numbers_of_examples(
    lengths: np.ndarray, size: StepSize
) -> None:
    plan = plan_epoch(lengths, lengths - 1, size, 0, 0)
    counts = [len(planned.indices) for batch in plan.batches[-size.accumulate :] for planned in batch]
    assert max(counts) - min(counts) <= 1


@given(packed(), st.integers(0, 3), st.integers(0, 3))
def test_packed_examples_are_planned_once_and_no_batch_has_more_tokens_than_its_packs_hold(
    case: Case, seed: int, epoch: int
) -> None:
    lengths, supervised, size = case
    plan = plan_epoch(lengths, supervised, size, seed, epoch)
    assert sorted(examples_of(plan)) == list(range(len(lengths)))
    assert all(len(batch) == size.world_size for batch in plan.batches)
    assert len(plan) == size.steps * size.accumulate  # type: ignore[operator]
    most = max(int(lengths[list(planned.indices)].sum()) for batch in plan.batches for planned in batch)
    assert most <= size.batch_size * 500
    assert plan == plan_epoch(lengths, supervised, size, seed, epoch)


def test_packs_stay_whole_if_their_examples_would_overfill_a_batch() -> None:
    lengths = np.array([400, 100, 100, 100, 100, 100])  # balanced one by one: 400 + 100 + 100, and 300
    (first, second) = plan_epoch(lengths, lengths, StepSize(1, 2, 1, "packed", 500, 1), 0, 0).batches
    assert {int(lengths[list(planned.indices)].sum()) for planned in (first[0], second[0])} == {500, 400}


@given(packed(), st.integers(0, 3))
def test_packed_steps_have_nearly_equal_supervised_tokens_without_drift(case: Case, epoch: int) -> None:
    lengths, supervised, size = case
    plan = plan_epoch(lengths, supervised, size, 0, epoch)
    tokens = np.array([supervised[step].sum() for step in steps_of(plan, size)])
    assert tokens.min() > 0
    assert [batch[0].step_tokens for batch in plan.batches[:: size.accumulate]] == tokens.tolist()
    pack, packs = best_fit(lengths, 500, np.random.default_rng([0, epoch]).permutation(len(lengths)))
    largest = int(np.bincount(pack, weights=supervised, minlength=packs).max())
    assert tokens.max() - tokens.min() <= largest
    drift = np.cumsum(tokens) - np.arange(1, len(tokens) + 1) * supervised.sum() / len(tokens)
    assert np.abs(drift).max() <= largest


@given(packed(), st.integers(1, 4), st.integers(1, 3), st.integers(1, 4))
def test_the_examples_of_a_packed_step_do_not_depend_on_its_micro_batches(
    case: Case, accumulate: int, world_size: int, more: int
) -> None:
    lengths, supervised, one = case
    other = replace(one, batch_size=one.step_capacity * more, accumulate=accumulate, world_size=world_size)
    first, second = (
        [set(step) for step in steps_of(plan_epoch(lengths, supervised, size, 1, 2), size)] for size in (one, other)
    )
    assert first == second
    assert one.rows_of_a_step == other.rows_of_a_step


def test_micro_batches_of_a_packed_step_have_similar_tokens() -> None:
    """A step has 10 packs and 16 micro-batches: with whole packs six micro-batches would be empty."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(16, 200, 2000)
    packs = best_fit(lengths, 500, np.arange(2000))[1]
    size = StepSize(4, 4, 4, "packed", 500, packs // 10)
    plan = plan_epoch(lengths, lengths, size, 0, 0)
    tokens = np.array([[lengths[list(planned.indices)].sum() for planned in batch] for batch in plan.batches])
    assert tokens.reshape(-1, 16).std(axis=1).max() < 0.2 * tokens.mean()


@given(LENGTHS, SIZES)
def test_a_batch_knows_the_supervised_tokens_of_its_whole_step(lengths: np.ndarray, size: StepSize) -> None:
    supervised = lengths // 2
    plan = plan_epoch(lengths, supervised, size, seed=0, epoch=0)
    for start in range(0, len(plan), size.accumulate):
        step = [planned for batch in plan.batches[start : start + size.accumulate] for planned in batch]
        tokens = sum(int(supervised[list(planned.indices)].sum()) for planned in step)
        assert {planned.step_tokens for planned in step} == {tokens}
    each = [plan.batches[start][0].step_tokens for start in range(0, len(plan), size.accumulate)]
    assert tokens_of_steps(lengths, supervised, size, seed=0, epoch=0).tolist() == each


@given(LENGTHS, st.integers(1, 4), st.integers(1, 3))
def test_the_examples_of_a_step_do_not_depend_on_its_micro_batches(
    lengths: np.ndarray, accumulate: int, world_size: int
) -> None:
    """One batch of 2 x accumulate x ranks examples or many small ones: the same steps, in the same order."""

    def steps(size: StepSize) -> list[set[int]]:
        return [set(step) for step in steps_of(plan_epoch(lengths, lengths, size, seed=1, epoch=2), size)]

    assert steps(StepSize(2, accumulate, world_size)) == steps(StepSize(2 * accumulate * world_size))


@pytest.mark.parametrize("size", [StepSize(4), StepSize(4, 2, 1, "packed", 64, 6)], ids=str)
def test_plans_depend_on_seed_and_epoch_and_nothing_else(size: StepSize) -> None:
    lengths = np.arange(1, 65)
    plans = {(seed, epoch): plan_epoch(lengths, lengths, size, seed, epoch) for seed in (0, 1) for epoch in (0, 1)}
    steps = {key: frozenset(frozenset(step) for step in steps_of(plan, size)) for key, plan in plans.items()}
    assert len(set(steps.values())) == 4
    assert plans[0, 1] == plan_epoch(lengths, lengths, size, 0, 1)


def test_examples_of_a_batch_have_similar_lengths() -> None:
    lengths = np.random.default_rng(0).integers(1, 500, 640)
    plan = plan_epoch(lengths, lengths, StepSize(4, 16), seed=0, epoch=0)
    batches = [lengths[list(planned.indices)] for batch in plan.batches for planned in batch]
    assert sum(int(batch.max()) * len(batch) for batch in batches) < 1.1 * lengths.sum()


@pytest.mark.parametrize(
    ("examples", "batch_size", "world_size"), [(10, 4, 1), (10, 4, 3), (1, 4, 2), (8, 2, 4), (7, 3, 2)]
)
def test_evaluation_takes_every_example_once_over_all_ranks(examples: int, batch_size: int, world_size: int) -> None:
    plans = [plan_evaluation(examples, batch_size, rank, world_size) for rank in range(world_size)]
    assert sorted(index for plan in plans for batch in plan for index in batch) == list(range(examples))
    assert len({len(plan) for plan in plans}) == 1
