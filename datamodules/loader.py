"""The planned batches as a data set, and a training loader that goes on wherever training stands."""

from collections.abc import Callable, Iterator

from torch.utils.data import DataLoader, Dataset

from datamodules.batching import PlannedBatch
from datamodules.collate import Batch, collate
from datamodules.token_rows import TokenRows
from errors import UserError


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

    `done()` is the number of batches that training has processed since its first epoch. Lightning keeps it in every
    checkpoint and has it back before it asks for an iterator, so a resumed run needs no position of ours: it is the
    same on every rank, it does not count what workers fetched ahead, and at the end of an epoch it means the next.
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

    def state_dict(self) -> dict[str, int]:
        return {"batches_in_epoch": self._in_epoch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Raises UserError where a position in the checkpoint's epochs would mean another one here."""
        before = state["batches_in_epoch"]
        if before != self._in_epoch:
            problem = f"was saved in epochs of {before:,} batches, and here they have {self._in_epoch:,}"
            fix = "resume with the same data, data.batch_size, trainer.devices and trainer.accumulate_grad_batches"
            raise UserError("--ckpt_path", None, f"the checkpoint {problem}", fix)
