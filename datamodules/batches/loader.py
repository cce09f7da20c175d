"""The batches of a plan, made by threads ahead of their use, and a training loader that goes on where training stands.

Threads and not processes: a batch is a few copies out of a memory-mapped file, made in less time than another process
would take to hand it over (benchmarks/loading.py), and a process that is forked while other threads run (gloo's,
TensorBoard's, the progress bar's) may hang before it has begun.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import torch

from datamodules.batches.collate import Batch, collate
from datamodules.batches.plan import PlannedBatch
from datamodules.prepare.token_dataset import TokenDataset

AHEAD = 2  # batches for each thread; torch's DataLoader has as many for each worker


class PlannedBatches:
    """The planned batches in their order, in pinned memory where there is a GPU.

    `num_workers` threads make them ahead, each as many as AHEAD says; with 0 each is made when it is asked for.
    """

    def __init__(self, rows: TokenDataset, planned: list[PlannedBatch], pad_id: int, num_workers: int = 0) -> None:
        self.rows, self.planned, self.pad_id, self.num_workers = rows, planned, pad_id, num_workers

    def __len__(self) -> int:
        return len(self.planned)

    def __iter__(self) -> Iterator[Batch]:
        pin = torch.cuda.is_available()
        for batch in self._ahead() if self.num_workers else map(self.make, self.planned):
            yield batch.pin_memory() if pin else batch

    def make(self, batch: PlannedBatch) -> Batch:
        """The tensors of one of them; asked from any thread."""
        return collate([self.rows[row] for row in batch.rows], batch.step_tokens, self.pad_id)

    def _ahead(self) -> Iterator[Batch]:
        pool, todo = ThreadPoolExecutor(self.num_workers, "batches"), iter(self.planned)
        try:
            ahead = deque(pool.submit(self.make, batch) for batch in islice(todo, AHEAD * self.num_workers))
            while ahead:
                made = ahead.popleft().result()
                ahead.extend(pool.submit(self.make, batch) for batch in islice(todo, 1))
                yield made
        finally:  # the others may not be wanted any more
            pool.shutdown(wait=False, cancel_futures=True)


class PlanLoader:
    """The training loader: this rank's batches by plan, from wherever training stands.

    `done()` is the number of batches that training has processed since its first epoch. A resumed fit has it back
    before Lightning asks for an iterator: it is the same on every rank, it does not count what was made ahead, and at
    the end of an epoch it means the next.
    """

    def __init__(
        self, planned: int, in_epoch: int, batches: Callable[[int, int], Iterable[Batch]], done: Callable[[], int]
    ) -> None:
        self._planned, self._in_epoch = planned, in_epoch  # batches in the plan of an epoch, and those that are taken
        self._batches, self._done = batches, done

    def __len__(self) -> int:
        return self._planned

    def __iter__(self) -> Iterator[Batch]:
        epoch, start = divmod(self._done(), self._in_epoch)
        return iter(self._batches(epoch, start))
