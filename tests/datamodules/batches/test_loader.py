import threading
import time
from typing import Any

import numpy as np
import pytest
import torch

from datamodules.batches.loader import AHEAD, PlannedBatches
from datamodules.batches.plan import PlannedBatch
from datamodules.prepare.token_dataset import TokenExample


class Rows:
    """As many as are asked for, each of other ids, and a note of those that were; `broken` cannot be read."""

    def __init__(self, broken: int | None = None) -> None:
        self.read: list[int] = []
        self.broken = broken

    def __getitem__(self, row: int) -> TokenExample:
        if row == self.broken:
            raise OSError("the disk is gone")
        time.sleep(0.001 * (row % 3))  # a thread may be done before one that began earlier
        self.read.append(row)
        return TokenExample(row, str(row), "", np.arange(row, row + 4, dtype=np.int32), np.array([0, 1, 1, 1], np.int8))


def batches(rows: Any, number: int, workers: int) -> PlannedBatches:
    planned = [PlannedBatch((2 * k, 2 * k + 1), k) for k in range(number)]
    return PlannedBatches(rows, planned, 0, workers)


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("batches")]


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_the_batches_are_those_of_the_plan_in_its_order(workers: int) -> None:
    loader = batches(Rows(), 20, workers)
    assert len(loader) == 20
    for _ in range(2):
        made = list(loader)
        assert [batch.rows for batch in made] == [[2 * k, 2 * k + 1] for k in range(20)]
        assert [batch.step_tokens for batch in made] == list(range(20))
        assert all(torch.equal(batch.input_ids[0, :4], torch.arange(4) + 2 * k) for k, batch in enumerate(made))


@pytest.mark.parametrize(("workers", "most"), [(0, 1), (2, 1 + 2 * AHEAD)])
def test_only_a_few_are_made_ahead_and_none_for_an_iterator_that_was_left(workers: int, most: int) -> None:
    rows = Rows()
    iterator = iter(batches(rows, 1000, workers))
    next(iterator)
    until = time.monotonic() + 20
    while len(rows.read) < 2 * most and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(0.1)
    assert len(rows.read) == 2 * most
    assert len(threads()) == workers
    del iterator
    while threads() and time.monotonic() < until:
        time.sleep(0.01)
    assert not threads()
    assert len(rows.read) == 2 * most


@pytest.mark.parametrize("workers", [0, 2])
def test_a_row_that_cannot_be_read_breaks_its_own_batch(workers: int) -> None:
    made = iter(batches(Rows(broken=13), 20, workers))
    assert [next(made).rows[0] for _ in range(6)] == [0, 2, 4, 6, 8, 10]
    with pytest.raises(OSError, match="the disk is gone"):
        next(made)


@pytest.mark.gpu
@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_pinned_where_there_is_a_gpu(workers: int) -> None:
    for batch in batches(Rows(), 6, workers):
        assert batch.input_ids.is_pinned()
        assert batch.to("cuda").input_ids.is_cuda
