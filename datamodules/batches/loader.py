"""The batches of a plan, made ahead by threads, and a training loader that starts at the current position of the fit.

Threads are faster than processes here. A batch is a few copies out of a memory-mapped file. A process would need more
time to send it than to make it (benchmarks/README.md, "Making batches"). A process that is forked while threads of
gloo, TensorBoard or the progress bar run may also hang before it starts.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import torch

from datamodules.batches.collate import Batch, collate
from datamodules.batches.plan import PlannedBatch
from datamodules.prepare.token_dataset import TokenDataset

AHEAD = 2  # batches per thread; the default of torch's DataLoader per worker (prefetch_factor)


class PlannedBatches:
    """The planned batches in their order, in pinned memory if there is a GPU.

    `num_workers` threads make them ahead, AHEAD each. With 0 each batch is made when it is needed.
    """

    def __init__(self, examples: TokenDataset, planned: list[PlannedBatch], pad_id: int, num_workers: int = 0) -> None:
        self.examples, self.planned, self.pad_id, self.num_workers = examples, planned, pad_id, num_workers

    def __len__(self) -> int:
        return len(self.planned)

    def __iter__(self) -> Iterator[Batch]:
        pin = torch.cuda.is_available()
        for batch in self._ahead() if self.num_workers else map(self.make, self.planned):
            yield batch.pin_memory() if pin else batch

    def make(self, planned: PlannedBatch) -> Batch:
        """The tensors of one planned batch. Any thread may call this."""
        return collate([self.examples[index] for index in planned.indices], planned.step_tokens, self.pad_id)

    def _ahead(self) -> Iterator[Batch]:
        pool, planned = ThreadPoolExecutor(self.num_workers, "batches"), iter(self.planned)
        try:
            ahead = deque(pool.submit(self.make, one) for one in islice(planned, AHEAD * self.num_workers))
            while ahead:
                batch = ahead.popleft().result()
                ahead.extend(pool.submit(self.make, one) for one in islice(planned, 1))
                yield batch
        finally:  # the consumer may stop before the last batch
            pool.shutdown(wait=False, cancel_futures=True)


class PlanLoader:
    """The training loader of one rank: its batches of the plan, from the current position of the fit.

    `done()` returns the number of micro-batches that this rank has trained on since the first epoch. Lightning restores
    it before it asks a resumed fit for an iterator. It is the same on every rank, it does not count batches that were
    made ahead, and at the end of an epoch it points to the next one.
    """

    def __init__(
        self, planned: int, in_epoch: int, batches: Callable[[int, int], Iterable[Batch]], done: Callable[[], int]
    ) -> None:
        self._planned, self._in_epoch = planned, in_epoch  # batches of the plan of an epoch; batches to train on
        self._batches, self._done = batches, done
        self._planned_from: tuple[int, int] | None = None  # epoch and first batch, of the batches planned last

    def __len__(self) -> int:
        return self._planned

    def __iter__(self) -> Iterator[Batch]:
        epoch, start = divmod(self._done(), self._in_epoch)
        if self._planned_from != (epoch, start):  # Lightning asks twice before the first step
            self._planned_from, self._found = (epoch, start), self._batches(epoch, start)
        return iter(self._found)
