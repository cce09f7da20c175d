"""MagpieDataModule: from settings to batches. It puts the steps in order and computes nothing itself."""

import logging
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningDataModule

from datamodules import same_rows
from datamodules.batches.loader import PlanLoader, PlannedBatches
from datamodules.batches.plan import PlannedBatch, StepSize, plan_epoch, plan_evaluation
from datamodules.batches.step_size import Epochs, Packing, check_tokens_per_step, cut
from datamodules.prepare.cache import prepare, shortfall
from datamodules.prepare.pass_over_sources import Part, PassOverSources, Quotas
from datamodules.prepare.stats import Report
from datamodules.prepare.token_dataset import TokenDataset
from datamodules.rows.filters import Filters
from datamodules.rows.near_duplicates import DedupIndex
from datamodules.rows.sources import MixedSource, Source, check_sources, open_source
from datamodules.text.malformed import MalformedPolicy
from datamodules.text.response import Columns, Tags
from datamodules.text.segments import Template
from datamodules.text.steps import StepSettings
from datamodules.tokens.process import CUTTING, Overlong, ProcessedExample, ProcessingConfig
from datamodules.tokens.template import check_template, load_template
from datamodules.tokens.tokenizer import ThinkTokenizer
from errors import UserError

log = logging.getLogger("thinkwright")
AT_LEAST = {"max_length": 8, "batch_size": 1, "val_batch_size": 1, "num_workers": 0, "num_proc": 1}


class MagpieDataModule(LightningDataModule):
    """Rows with an instruction and a response that thinks in `<think>` blocks.

    Args:
        source: `builtin`, a .parquet, .jsonl, .json or .arrow file (.gz and .zst, too), a folder or glob of them, or a
            data set id on the hub.
        mix: Several sources, which take the place of `source`.
        revision: Commit of the hub data set; pin it, so that the rows never change. null takes the newest.
        split: Split of the hub data set.
        columns: Names of the columns.
        where: Which rows are wanted: for a column the values to keep, or {min, max} for numbers; `tokens` and `steps`
            are the length of the whole row and its think blocks.
        untidy: What is done about responses that are not whole blocks followed by an answer.
        template: Text before the response: `instruction` is the recipe's, `chat` the model's own chat template, else a
            Jinja file, or a text with {{ instruction }} in it. The end-of-sequence token is added after the response.
        system: System prompt, for templates that have a place for one. null leaves it to the template.
        tags: What opens and closes a thought, for the model; tokens that it has are used, others are added to it.
        source_tags: The same in the data, if it is another pair.
        new_tokens: Further tokens that the model is to learn, like <step>: they become one token wherever they stand in
            an instruction or a response, and their rows are trained with those of the tags.
        steps: How thoughts are split into steps; each step gets a think block.
        max_length: Tokens of a whole row.
        overlong: Longer rows are left out and counted (`drop`), lose whole steps from the middle of their reasoning
            (`truncate_thoughts`; known to hurt: arXiv 2502.07374), or their end (`truncate`; teaches unclosed blocks).
        near_duplicate_threshold: Similarity, up to 1, from which on two instructions are one and may not be on both sides of the
            border between training and held-out rows. null compares exactly: up to case and white space.
        heldout_ratio: Share of the instructions that is never trained on, for validation and test.
        seed: Decides which instructions are held out and the order of training.
        train_rows: Training rows that survive all checks; preparation stops when it has them. null takes all.
        val_rows: Held-out rows for validation, likewise.
        test_rows: Further held-out rows, for test and predict only.
        batch_size: Rows a device takes at once in training; of packed rows, as many tokens as so many hold at most.
        packing: `none` takes batch_size rows at once, `grouped` rows of like length out of the whole epoch, `packed` as
            many whole rows as fill batch_size times max_length; no row sees another. `auto`: packed on GPUs, else none.
        tokens_per_step: Supervised tokens of an optimizer step of packed rows; null: the mean of unpacked ones.
        val_batch_size: Rows a device takes at once in validation, test and predict.
        num_workers: Threads that make a device's batches ahead; 0 makes each when it is asked for.
        num_proc: Processes that prepare rows, where there are more than a few thousand; 1 prepares in this one.
        cache_dir: Folder for prepared rows.
        tokenizer: Model whose tokenizer is used; the same as model.name.
        tokenizer_revision: The same as model.revision.
    """

    def __init__(
        self,
        source: str = "builtin",
        mix: list[MixedSource] | None = None,
        revision: str | None = None,
        split: str = "train",
        columns: Columns = Columns(),  # noqa: B008 (read as the default of a nested config, never changed)
        where: dict[str, Any] | None = None,
        untidy: MalformedPolicy = MalformedPolicy(),  # noqa: B008
        template: str = "instruction",
        system: str | None = None,
        tags: Tags = Tags(),  # noqa: B008
        source_tags: Tags | None = None,
        new_tokens: list[str] = [],  # noqa: B006
        steps: StepSettings = StepSettings(),  # noqa: B008
        max_length: int = 512,
        overlong: Overlong = "drop",
        near_duplicate_threshold: float | None = 0.8,
        heldout_ratio: float = 0.1,
        seed: int = 0,
        train_rows: int | None = 10_000,
        val_rows: int | None = 1_000,
        test_rows: int | None = 1_000,
        batch_size: int = 4,
        packing: Packing = "auto",
        tokens_per_step: int | None = None,
        val_batch_size: int = 16,
        num_workers: int = 4,
        num_proc: int = 4,
        cache_dir: str = "~/.cache/thinkwright",
        tokenizer: str = "assets/tiny-qwen",
        tokenizer_revision: str | None = None,
    ) -> None:
        super().__init__()
        self.given = [MixedSource(source, None, revision, split)] if mix is None else mix
        self.columns, self.where, self.untidy = columns, where, untidy
        self.template_setting, self.system, self.tags, self.source_tags = template, system, tags, source_tags
        self.new_tokens = tuple(new_tokens)
        self.steps, self.max_length, self.overlong, self.near_duplicate_threshold = (
            steps,
            max_length,
            overlong,
            near_duplicate_threshold,
        )
        self.heldout_ratio, self.seed = heldout_ratio, seed
        self.rows_wanted = {"train": train_rows, "val": val_rows, "test": test_rows}
        self.batch_size, self.val_batch_size, self.num_workers = batch_size, val_batch_size, num_workers
        self.packing, self.tokens_per_step = packing, tokens_per_step
        self.num_proc, self.cache_dir = num_proc, Path(cache_dir).expanduser()
        self.tokenizer_name, self.tokenizer_revision = tokenizer, tokenizer_revision
        self.splits: dict[str, TokenDataset] = {}
        self.report = Report()
        self.trains = False  # set where a fit begins with a validation: what it cannot train on is said before that
        self.epochs: Epochs | None = None  # how those of a fit are cut
        self._announced: Path | None = None
        self._cut_for: tuple[Path, StepSize] | None = None
        self._check()

    def _check(self) -> None:
        """Raises UserError for settings that cannot be."""
        for key, least in AT_LEAST.items():
            if (value := getattr(self, key)) < least:
                raise UserError(f"data.{key}", value, f"is below {least}", f"give {least} or more")
        if not 0 < self.heldout_ratio < 1:
            raise UserError(
                "data.heldout_ratio", self.heldout_ratio, "is not a share between 0 and 1", "give 0.1 for one in ten"
            )
        if self.near_duplicate_threshold is not None:
            DedupIndex(self.near_duplicate_threshold)  # says so if it cannot be
        check_template(self.template_setting, self.system)
        self.tags.check("data.tags")
        self.steps.check()
        check_tokens_per_step(self.packing, self.tokens_per_step)
        check_sources(self.given, self.rows_wanted)
        for one in self.given:
            (one.tags or self.source_tags or self.tags).check("data.source_tags")
            Filters(one.where if one.where is not None else self.where)

    # Preparation

    @property
    def think_tokenizer(self) -> ThinkTokenizer:
        return ThinkTokenizer.load(self.tokenizer_name, self.tokenizer_revision, self.tags, self.new_tokens)

    @property
    def template(self) -> Template:
        """Raises UserError for one that does not suit the model."""
        return load_template(self.template_setting, self.system, self.think_tokenizer)

    def open_sources(self) -> list[Source]:
        """Raises UserError for one that is not there."""
        return [open_source(one.name, one.revision, one.split, self.heldout_ratio, self.seed) for one in self.given]

    def parts(self) -> list[Part]:
        """The sources, each with how its rows are taken."""
        template = self.template
        return [
            Part(
                source,
                ProcessingConfig(
                    template,
                    self.steps,
                    self.max_length,
                    self.overlong,
                    one.columns or self.columns,
                    one.tags or self.source_tags or self.tags,
                    one.untidy or self.untidy,
                    one.where if one.where is not None else self.where or {},
                ),
                one.weight,
            )
            for one, source in zip(self.given, self.open_sources(), strict=True)
        ]

    def quotas(self, stage: str) -> Quotas:
        splits = ("val", "test") if stage in ("test", "predict") else ("train", "val")
        return {split: self.rows_wanted[split] for split in splits}

    def outcomes(self, limit: int | None = None) -> Iterator[tuple[ProcessedExample, str, str | None]]:
        """What becomes of each of the first rows, with its texts, the name of its source and its split, or None where
        it is left out; `report` is filled meanwhile. Nothing is cached."""
        survey = PassOverSources(
            self.parts(), self.think_tokenizer.encoder, self.quotas("fit"), self.near_duplicate_threshold, texts=True
        )
        self.report = survey.report
        return islice(iter(survey), limit)

    def _prepare(self, stage: str) -> tuple[Path, Report]:
        tokenizer = self.think_tokenizer
        self.pad_id = tokenizer.end_id
        return prepare(
            self.parts(), tokenizer, self.quotas(stage), self.near_duplicate_threshold, self.cache_dir, self.num_proc
        )

    def _stage(self) -> str:
        assert self.trainer is not None and self.trainer.state.fn is not None
        return str(self.trainer.state.fn.value)

    def prepare_data(self) -> None:
        """Once per machine, before any model is loaded; the other ranks find the result on disk."""
        self._prepare(self._stage())

    def setup(self, stage: str) -> None:
        trains = stage == "fit" or self.trains
        stage = "fit" if stage == "validate" else stage
        folder, self.report = self._prepare(stage)
        if folder != self._announced:
            self._announced = folder
            lines = [*self.report.lines(self.max_length), *shortfall(self.report, self.quotas(stage))]
            if self.overlong != "drop":
                lines.append(CUTTING[self.overlong])
            for line in [*lines, f"data: prepared in {folder}"]:
                log.info(line)
        self.splits = {split: TokenDataset(folder / f"{split}.arrow") for split in self.report.kept}
        if trains:
            self._cut(folder)

    # Resuming

    def identity(self) -> dict[str, Any]:
        """The digests of the prepared rows and the settings behind them, as plain JSON. A checkpoint stores it."""
        return same_rows.identity(self)

    def check_same_rows(self, saved: Mapping[str, Any]) -> None:
        """Raise UserError if the rows of this run differ from the rows of `saved`, the identity in a checkpoint."""
        same_rows.check_same_rows(saved, self.identity())

    # Training

    def _cut(self, folder: Path) -> None:
        """Once for the same rows and sizes: a fit comes here before each of its validations, too."""
        trainer, rows = self.trainer, self.splits["train"]
        assert trainer is not None
        plain = StepSize(self.batch_size, trainer.accumulate_grad_batches, trainer.world_size)
        if self._cut_for != (folder, plain):
            given = self.packing, self.max_length, self.tokens_per_step, trainer.strategy.root_device.type, self.seed
            self.epochs = cut(rows.lengths, rows.supervised, plain, *given)
            self._cut_for = folder, plain
            log.info(self.epochs.line())

    def sizes(self) -> StepSize:
        assert self.epochs is not None
        return self.epochs.sizes

    def batches_per_epoch(self) -> tuple[int, int]:
        """Of a rank: those in the plan, and those of them that are taken (trainer.limit_train_batches)."""
        assert self.trainer is not None and self.epochs is not None
        limit = self.trainer.limit_train_batches
        planned = self.epochs.steps * self.epochs.sizes.accumulate
        return planned, min(planned, limit) if isinstance(limit, int) else int(planned * limit)

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of an epoch, from the plan."""
        return -(-self.batches_per_epoch()[1] // self.sizes().accumulate)

    def train_dataloader(self) -> PlanLoader:
        trainer = self.trainer
        assert trainer is not None
        rows, sizes = self.splits["train"], self.sizes()

        def batches(epoch: int, start: int) -> PlannedBatches:
            plan = plan_epoch(rows.lengths, rows.supervised, sizes, self.seed, epoch)
            return self._loader("train", [batch[trainer.global_rank] for batch in plan.batches[start:]])

        def done() -> int:
            return int(trainer.fit_loop.epoch_loop.batch_progress.total.processed)  # type: ignore[attr-defined]

        return PlanLoader(*self.batches_per_epoch(), batches, done)

    # Evaluation

    def val_dataloader(self) -> PlannedBatches:
        return self._evaluation("val")

    def test_dataloader(self) -> PlannedBatches:
        return self._evaluation("test")

    def predict_dataloader(self) -> PlannedBatches:
        return self._evaluation("test")

    def _evaluation(self, split: str) -> PlannedBatches:
        assert self.trainer is not None
        plan = plan_evaluation(
            len(self.splits[split]), self.val_batch_size, self.trainer.global_rank, self.trainer.world_size
        )
        return self._loader(split, [PlannedBatch(rows, 0) for rows in plan])

    def _loader(self, split: str, planned: list[PlannedBatch]) -> PlannedBatches:
        return PlannedBatches(self.splits[split], planned, self.pad_id, self.num_workers)
