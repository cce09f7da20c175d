"""The planned batches as a data set, and a training loader that goes on wherever training stands."""

import signal
from collections.abc import Callable, Iterator

from torch.utils.data import DataLoader, Dataset

from datamodules.batching import PlannedBatch
from datamodules.collate import Batch, collate
from datamodules.token_rows import TokenRows

PATIENCE = 120  # seconds that a worker lives on after SIGTERM


class PlannedBatches(Dataset[Batch]):
    """Item i is the i-th planned batch."""

    def __init__(self, rows: TokenRows, planned: list[PlannedBatch], pad_id: int) -> None:
        self.rows, self.planned, self.pad_id = rows, planned, pad_id

    def __len__(self) -> int:
        return len(self.planned)

    def __getitem__(self, index: int) -> Batch:
        batch = self.planned[index]
        return collate([self.rows[row] for row in batch.rows], batch.step_tokens, self.pad_id)


class PlanLoader:
    """The training loader: this rank's batches by plan, from wherever training stands.

    `done()` is the number of batches that training has processed since its first epoch. A resumed fit has it back
    before Lightning asks for an iterator: it is the same on every rank, it does not count what workers fetched ahead,
    and at the end of an epoch it means the next.
    """

    def __init__(
        self, planned: int, in_epoch: int, batches: Callable[[int, int], DataLoader[Batch]], done: Callable[[], int]
    ) -> None:
        self._planned, self._in_epoch = planned, in_epoch  # batches in the plan of an epoch, and those that are taken
        self._batches, self._done = batches, done

    def __len__(self) -> int:
        return self._planned

    def __iter__(self) -> Iterator[Batch]:
        epoch, start = divmod(self._done(), self._in_epoch)
        return iter(self._batches(epoch, start))


def leave_signals_to_the_trainer(worker: int) -> None:
    """For a worker process: Ctrl-C and a cluster's SIGTERM reach it, too, and the trainer still needs its batches to
    come to the end of an optimizer step. It ends with the trainer, however that ends; or in a while, should nobody ask
    it to."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(PATIENCE))
