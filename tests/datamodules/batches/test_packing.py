import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamodules.batches.packing import best_fit, deal, without_drift
from datamodules.magpie import MagpieDataModule

CAPACITY = 60
LENGTHS = st.lists(st.integers(1, CAPACITY), min_size=1, max_size=120).map(np.array)


def packed(lengths: np.ndarray, seed: int = 0, capacity: int = CAPACITY) -> list[list[int]]:
    """The rows of each pack."""
    pack, packs = best_fit(lengths, capacity, np.random.default_rng(seed).permutation(len(lengths)))
    return [np.flatnonzero(pack == k).tolist() for k in range(packs)]


def one_by_one(lengths: list[int], capacity: int) -> list[list[int]]:
    """Best fit decreasing as it is defined: each row, the longest first, into the fullest pack that takes it. Gives the
    lengths in each pack."""
    packs: list[list[int]] = []
    for length in sorted(lengths, reverse=True):
        taking = [pack for pack in packs if sum(pack) + length <= capacity]
        if taking:
            max(taking, key=sum).append(length)
        else:
            packs.append([length])
    return sorted(packs)


@given(LENGTHS, st.integers(0, 3))
def test_every_row_is_in_one_pack_and_no_pack_is_overfull(lengths: np.ndarray, seed: int) -> None:
    packs = packed(lengths, seed)
    assert sorted(row for pack in packs for row in pack) == list(range(len(lengths)))
    assert all(0 < lengths[pack].sum() <= CAPACITY for pack in packs)


@given(LENGTHS)
def test_each_row_is_in_the_fullest_pack_that_took_it(lengths: np.ndarray) -> None:
    """The packs are those of the algorithm as it is defined, up to which of equally full packs is which: no more of
    them, and as full."""
    theirs = one_by_one(lengths.tolist(), CAPACITY)
    ours = packed(lengths)
    assert sorted(int(lengths[pack].sum()) for pack in ours) == sorted(map(sum, theirs))


@given(LENGTHS)
def test_packs_are_as_full_in_every_epoch(lengths: np.ndarray) -> None:
    """So the number of steps can be known before the first."""
    first, second = ([int(lengths[pack].sum()) for pack in packed(lengths, seed)] for seed in (0, 1))
    assert first == second


def test_rows_of_equal_length_change_places() -> None:
    lengths = np.random.default_rng(0).integers(5, CAPACITY, 300)
    assert packed(lengths, 0) != packed(lengths, 1)
    assert packed(lengths, 0) == packed(lengths, 0)


@given(st.lists(st.lists(st.integers(0, 50), min_size=7, max_size=7), min_size=1, max_size=5), st.integers(1, 9))
def test_bins_are_dealt_as_many_and_as_much(values: list[list[int]], bins: int) -> None:
    dealt = deal(np.array(values), bins)
    for line, chosen in zip(np.array(values), dealt, strict=True):
        counts = np.bincount(chosen, minlength=bins)
        assert counts.max() - counts.min() <= 1
        sums = np.bincount(chosen, weights=line, minlength=bins)
        assert sums.max() - sums.min() <= line.max()


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=200).map(np.array), st.integers(0, 3))
def test_the_running_sum_does_not_drift(values: np.ndarray, seed: int) -> None:
    order = without_drift(values, np.random.default_rng(seed))
    assert sorted(order.tolist()) == list(range(len(values)))
    strays = np.abs(np.cumsum(values[order]) - np.arange(1, len(values) + 1) * values.mean())
    assert strays.max() <= np.abs(values - values.mean()).max() + 1e-6


@pytest.fixture(scope="module")
def real_lengths(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """Tokens of the real rows, one think block a step."""
    folder = tmp_path_factory.mktemp("real")
    shutil.copytree(shared / "qwen1.5-tokenizer", folder / "qwen")
    (folder / "qwen" / "config.json").write_text(json.dumps({"model_type": "qwen2"}))
    given = {"train_rows": None, "val_rows": None, "near_duplicate_threshold": None, "max_length": 100_000}
    data = MagpieDataModule(str(shared / "real" / "*.jsonl"), tokenizer=str(folder / "qwen"), **given)  # type: ignore[arg-type]
    return np.array([len(outcome.ids) for outcome, _, split in data.processed_examples() if split is not None])


@pytest.mark.parametrize("max_length", [512, 1024, 2048, 4096])
def test_real_rows_need_hardly_more_packs_than_they_must(max_length: int, real_lengths: np.ndarray) -> None:
    """97% full where it can be: of rows longer than half a pack, each needs one of its own."""
    lengths = real_lengths[real_lengths <= max_length]
    must = max(int((2 * lengths > max_length).sum()), -(-int(lengths.sum()) // max_length))
    packs = len(packed(lengths, capacity=max_length))
    filled = lengths.sum() / (packs * max_length)
    assert filled >= min(0.97, 0.99 * lengths.sum() / (must * max_length))
    if max_length >= 2048:
        assert filled >= 0.97
