import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamodules.batches.packing import balanced_bins, best_fit, low_drift_order
from datamodules.magpie import MagpieDataModule

CAPACITY = 60
LENGTHS = st.lists(st.integers(1, CAPACITY), min_size=1, max_size=120).map(np.array)


def packed(lengths: np.ndarray, seed: int = 0, capacity: int = CAPACITY) -> list[list[int]]:
    """The examples of each pack."""
    pack, packs = best_fit(lengths, capacity, np.random.default_rng(seed).permutation(len(lengths)))
    return [np.flatnonzero(pack == k).tolist() for k in range(packs)]


def one_by_one(lengths: list[int], capacity: int) -> list[list[int]]:
    """The lengths in each pack, by the definition of best fit decreasing: one example after another, the longest first,
    each into the fullest pack with room for it."""
    packs: list[list[int]] = []
    for length in sorted(lengths, reverse=True):
        fitting = [pack for pack in packs if sum(pack) + length <= capacity]
        if fitting:
            max(fitting, key=sum).append(length)
        else:
            packs.append([length])
    return sorted(packs)


@given(LENGTHS, st.integers(0, 3))
def test_every_example_is_in_exactly_one_pack_and_no_pack_exceeds_its_capacity(lengths: np.ndarray, seed: int) -> None:
    packs = packed(lengths, seed)
    assert sorted(example for pack in packs for example in pack) == list(range(len(lengths)))
    assert all(0 < lengths[pack].sum() <= CAPACITY for pack in packs)


@given(LENGTHS)
def test_packs_are_as_full_as_those_of_best_fit_decreasing(lengths: np.ndarray) -> None:
    """The order of equally full packs may differ."""
    expected = one_by_one(lengths.tolist(), CAPACITY)
    assert sorted(int(lengths[pack].sum()) for pack in packed(lengths)) == sorted(map(sum, expected))


@given(LENGTHS)
def test_packs_are_equally_full_in_every_epoch(lengths: np.ndarray) -> None:
    """Therefore the number of steps is known before the first epoch."""
    first, second = ([int(lengths[pack].sum()) for pack in packed(lengths, seed)] for seed in (0, 1))
    assert first == second


def test_another_order_packs_other_examples_of_equal_length_together() -> None:
    lengths = np.random.default_rng(0).integers(5, CAPACITY, 300)
    assert packed(lengths, 0) != packed(lengths, 1)
    assert packed(lengths, 0) == packed(lengths, 0)


@given(st.lists(st.lists(st.integers(0, 50), min_size=7, max_size=7), min_size=1, max_size=5), st.integers(1, 9))
def test_bins_are_balanced_in_number_and_in_sum(values: list[list[int]], bins: int) -> None:
    bins_of = balanced_bins(np.array(values), bins)
    for line, chosen in zip(np.array(values), bins_of, strict=True):
        counts = np.bincount(chosen, minlength=bins)
        assert counts.max() - counts.min() <= 1
        sums = np.bincount(chosen, weights=line, minlength=bins)
        assert sums.max() - sums.min() <= line.max()


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=200).map(np.array), st.integers(0, 3))
def test_the_running_sum_does_not_drift_from_the_mean(values: np.ndarray, seed: int) -> None:
    order = low_drift_order(values, np.random.default_rng(seed))
    assert sorted(order.tolist()) == list(range(len(values)))
    drift = np.abs(np.cumsum(values[order]) - np.arange(1, len(values) + 1) * values.mean())
    assert drift.max() <= np.abs(values - values.mean()).max() + 1e-6


@pytest.fixture(scope="module")
def r1_lengths(
    qwen_tokenizer: Path, r1_rows: list[dict[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> np.ndarray:
    """Tokens of R1-shaped rows, one think block per step."""
    source = tmp_path_factory.mktemp("r1") / "rows.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in r1_rows))
    given = {"train_rows": None, "val_rows": None, "near_duplicate_threshold": None, "max_length": 100_000}
    data = MagpieDataModule(str(source), tokenizer=str(qwen_tokenizer), **given)  # type: ignore[arg-type]
    return np.array([len(example.ids) for example, _, split in data.processed_examples() if split is not None])


@pytest.mark.parametrize("max_length", [512, 1024, 2048, 4096])
def test_packs_of_r1s_rows_are_97_percent_full_or_close_to_the_possible(
    max_length: int, r1_lengths: np.ndarray
) -> None:
    """At 512 and 1,024 tokens most rows are longer than half a pack, and each of them needs a pack of its own."""
    lengths = r1_lengths[r1_lengths <= max_length]
    fewest = max(int((2 * lengths > max_length).sum()), -(-int(lengths.sum()) // max_length))
    packs = len(packed(lengths, capacity=max_length))
    filled = lengths.sum() / (packs * max_length)
    assert filled >= min(0.97, 0.985 * lengths.sum() / (fewest * max_length))
    if max_length >= 2048:
        assert filled >= 0.97


def test_the_order_of_steps_depends_on_the_seed() -> None:
    values = np.arange(1, 65)
    orders = {tuple(low_drift_order(values, np.random.default_rng(seed))) for seed in range(8)}
    assert len(orders) == 8
