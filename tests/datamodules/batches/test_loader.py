import threading
import time
from typing import Any

import numpy as np
import pytest
import torch

from datamodules.batches.loader import AHEAD, PlanLoader, PlannedBatches
from datamodules.batches.plan import PlannedBatch
from datamodules.prepare.token_dataset import TokenExample


class Examples:
    """A dataset of any size that notes which examples were read; reading the example `broken` fails."""

    def __init__(self, broken: int | None = None) -> None:
        self.read: list[int] = []
        self.broken = broken

    def __getitem__(self, index: int) -> TokenExample:
        if index == self.broken:
            raise OSError("the disk is gone")
        time.sleep(0.001 * (index % 3))  # threads finish in another order than they start
        self.read.append(index)
        return TokenExample(
            index, str(index), "", np.arange(index, index + 4, dtype=np.int32), np.array([0, 1, 1, 1], np.int8)
        )


def batches(examples: Any, number: int, workers: int) -> PlannedBatches:
    planned = [PlannedBatch((2 * k, 2 * k + 1), k) for k in range(number)]
    return PlannedBatches(examples, planned, 0, workers)


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("batches")]


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_batches_have_the_order_of_the_plan(workers: int) -> None:
    loader = batches(Examples(), 20, workers)
    assert len(loader) == 20
    for _ in range(2):
        made = list(loader)
        assert [batch.indices for batch in made] == [[2 * k, 2 * k + 1] for k in range(20)]
        assert [batch.step_tokens for batch in made] == list(range(20))
        assert all(torch.equal(batch.input_ids[0, :4], torch.arange(4) + 2 * k) for k, batch in enumerate(made))


@pytest.mark.parametrize(("workers", "most"), [(0, 1), (2, 1 + 2 * AHEAD)])
def test_few_batches_are_made_ahead_and_none_after_the_iterator_is_gone(workers: int, most: int) -> None:
    examples = Examples()
    iterator = iter(batches(examples, 1000, workers))
    next(iterator)
    until = time.monotonic() + 20
    while len(examples.read) < 2 * most and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(0.1)
    assert len(examples.read) == 2 * most
    assert len(threads()) == workers
    del iterator
    while threads() and time.monotonic() < until:
        time.sleep(0.01)
    assert not threads()
    assert len(examples.read) == 2 * most


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_example_fails_its_own_batch_only(workers: int) -> None:
    made = iter(batches(Examples(broken=13), 20, workers))
    assert [next(made).indices[0] for _ in range(6)] == [0, 2, 4, 6, 8, 10]
    with pytest.raises(OSError, match="the disk is gone"):
        next(made)


@pytest.mark.gpu
@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_in_pinned_memory_with_a_gpu(workers: int) -> None:
    for batch in batches(Examples(), 6, workers):
        assert batch.input_ids.is_pinned()
        assert batch.to("cuda").input_ids.is_cuda


def test_an_epoch_is_planned_once_for_each_position() -> None:
    done, planned = 0, []

    def batches(epoch: int, start: int) -> list[Any]:
        planned.append((epoch, start))
        return [f"{epoch} {number}" for number in range(start, 4)]

    loader = PlanLoader(4, 4, batches, lambda: done)
    assert [*loader] == [*loader] == ["0 0", "0 1", "0 2", "0 3"]
    done = 6
    assert [*loader] == ["1 2", "1 3"]
    assert planned == [(0, 0), (1, 2)]
