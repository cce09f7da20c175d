"""MagpieDataModule: from settings to batches. It puts the steps in order and computes nothing itself."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Dataset

from datamodules.batching import PlannedBatch, Sizes, plan_epoch, plan_evaluation, steps_per_epoch
from datamodules.collate import Batch, collate
from datamodules.prepare import Recipe, Report, prepare
from datamodules.render import Template
from datamodules.sources import BUILT_IN, Source, open_source
from datamodules.thoughts import Columns
from datamodules.token_rows import TokenRows
from datamodules.tokenize import ThinkTokenizer
from errors import UserError

log = logging.getLogger("thinkwright")


class MagpieDataModule(LightningDataModule):
    """Rows with an instruction and a response that thinks in `<think>` blocks.

    Args:
        source: `builtin`, a .parquet, .jsonl or .json file, a folder or glob of them, or a data set id on the hub.
        revision: Commit of the hub data set; pin it, so that the rows never change. null takes the newest.
        split: Split of the hub data set.
        columns: Names of the columns.
        template: Text around an instruction and its response; the end-of-sequence token is added after it.
        think: `single` keeps think blocks as they are written, `multi` makes one block of each step.
        max_length: Tokens of a whole row; longer rows are left out and counted, never cut.
        held_out: Share of the instructions that is never trained on, for validation and test.
        seed: Decides which instructions are held out and the order of training.
        train_rows: Training rows that survive all checks; preparation stops when it has them. null takes all.
        val_rows: Held-out rows for validation, likewise.
        test_rows: Further held-out rows, for test and predict only.
        batch_size: Rows a device takes at once in training.
        val_batch_size: Rows a device takes at once in validation, test and predict.
        num_workers: Processes a device has for making batches; 0 makes them in the training process.
        cache_dir: Folder for prepared rows.
        tokenizer: Model whose tokenizer is used; the same as model.name.
        tokenizer_revision: The same as model.revision.
    """

    def __init__(
        self,
        source: str = "builtin",
        revision: str | None = None,
        split: str = "train",
        columns: Columns = Columns(),  # noqa: B008 (read as the default of a nested config, never changed)
        template: str = "### Instruction: {instruction}\n### Response: {response}",
        think: Literal["single", "multi"] = "multi",
        max_length: int = 512,
        held_out: float = 0.1,
        seed: int = 0,
        train_rows: int | None = 10_000,
        val_rows: int | None = 1_000,
        test_rows: int | None = 1_000,
        batch_size: int = 4,
        val_batch_size: int = 16,
        num_workers: int = 4,
        cache_dir: str = "~/.cache/thinkwright",
        tokenizer: str = "assets/tiny-qwen",
        tokenizer_revision: str | None = None,
    ) -> None:
        super().__init__()
        at_least = {
            "max_length": (max_length, 8),
            "batch_size": (batch_size, 1),
            "val_batch_size": (val_batch_size, 1),
            "num_workers": (num_workers, 0),
        }
        for key, (value, least) in at_least.items():
            if value < least:
                raise UserError(f"data.{key}", value, f"is below {least}", f"give {least} or more")
        if not 0 < held_out < 1:
            raise UserError(
                "data.held_out", held_out, "is not a share between 0 and 1", "give 0.1 for one instruction in ten"
            )
        rows = {"train": train_rows, "val": val_rows, "test": test_rows}
        for split_name, count in rows.items():
            if count is not None and count < 1:
                raise UserError(
                    f"data.{split_name}_rows", count, "is below 1", "give the number of rows, or null for all"
                )
            if count is None and source in BUILT_IN:
                raise UserError(
                    f"data.{split_name}_rows", "null", "asks for all of an endless source", "give the number of rows"
                )
        self.source_name, self.revision, self.split = source, revision, split
        self.held_out, self.seed = held_out, seed
        self.recipe = Recipe(Template(template), think, max_length, columns)
        self.rows_wanted = rows
        self.batch_size, self.val_batch_size, self.num_workers = batch_size, val_batch_size, num_workers
        self.cache_dir = Path(cache_dir).expanduser()
        self.tokenizer_name, self.tokenizer_revision = tokenizer, tokenizer_revision
        self.splits: dict[str, TokenRows] = {}
        self.report = Report()
        self._announced: Path | None = None

    def open_source(self) -> Source:
        """Raises UserError for a source that is not there."""
        return open_source(self.source_name, self.revision, self.split, self.held_out, self.seed)

    def _prepare(self, stage: str) -> tuple[Path, Report]:
        splits = ("val", "test") if stage in ("test", "predict") else ("train", "val")
        tokenizer = ThinkTokenizer.load(self.tokenizer_name, self.tokenizer_revision)
        self.pad_id = tokenizer.end_id
        return prepare(
            self.open_source(),
            tokenizer,
            self.recipe,
            {split: self.rows_wanted[split] for split in splits},
            self.cache_dir,
        )

    def _stage(self) -> str:
        assert self.trainer is not None and self.trainer.state.fn is not None
        return str(self.trainer.state.fn.value)

    def prepare_data(self) -> None:
        """Once per machine, before any model is loaded; the other ranks find the result on disk."""
        self._prepare(self._stage())

    def setup(self, stage: str) -> None:
        stage = "fit" if stage == "validate" else stage
        folder, self.report = self._prepare(stage)
        if folder != self._announced:
            self._announced = folder
            for line in self.report.lines(self.recipe.max_length):
                log.info(line)
        self.splits = {split: TokenRows(folder / f"{split}.arrow") for split in self.report.kept}
        for split, kept in self.report.kept.items():
            wanted = self.rows_wanted[split]
            if wanted and kept < wanted:
                read = f"{self.report.read:,} rows read"
                log.info(f"data.{split}_rows: {wanted:,} asked for, {kept:,} of {read} survive; using those")

    # Training

    def sizes(self) -> Sizes:
        assert self.trainer is not None
        return Sizes(self.batch_size, self.trainer.accumulate_grad_batches, self.trainer.world_size)

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of an epoch, from the plan."""
        return steps_per_epoch(len(self.splits["train"]), self.sizes())

    def train_dataloader(self) -> "PlanLoader":
        trainer = self.trainer
        assert trainer is not None
        rows, sizes = self.splits["train"], self.sizes()
        planned = steps_per_epoch(len(rows), sizes) * sizes.accumulate
        limit = trainer.limit_train_batches

        def batches(epoch: int, start: int) -> DataLoader[Batch]:
            plan = plan_epoch(rows.lengths, rows.supervised, sizes, self.seed, epoch)
            return self._loader("train", [batch[trainer.global_rank] for batch in plan.batches[start:]])

        def done() -> int:
            return int(trainer.fit_loop.epoch_loop.batch_progress.total.processed)  # type: ignore[attr-defined]

        in_epoch = min(planned, limit) if isinstance(limit, int) else int(planned * limit)
        return PlanLoader(planned, in_epoch, batches, done)

    # Evaluation

    def val_dataloader(self) -> DataLoader[Batch]:
        return self._evaluation("val")

    def test_dataloader(self) -> DataLoader[Batch]:
        return self._evaluation("test")

    def predict_dataloader(self) -> DataLoader[Batch]:
        return self._evaluation("test")

    def _evaluation(self, split: str) -> DataLoader[Batch]:
        assert self.trainer is not None
        plan = plan_evaluation(
            len(self.splits[split]), self.val_batch_size, self.trainer.global_rank, self.trainer.world_size
        )
        return self._loader(split, [PlannedBatch(rows, 0) for rows in plan])

    def _loader(self, split: str, planned: list[PlannedBatch]) -> DataLoader[Batch]:
        return DataLoader(
            _Planned(self.splits[split], planned, self.pad_id),
            batch_size=None,
            num_workers=self.num_workers,
            pin_memory=torch.cuda.is_available(),
        )


class _Planned(Dataset[Batch]):
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
