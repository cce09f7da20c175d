"""MagpieDataModule: from settings to batches. It calls the rooms in their order and computes nothing itself."""

import logging
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningDataModule

from datamodules import same_rows
from datamodules.batches.limits import check_limits, used_batches
from datamodules.batches.loader import PlanLoader, PlannedBatches
from datamodules.batches.plan import PlannedBatch, StepSize, plan_epoch, plan_evaluation
from datamodules.batches.step_size import EpochLayout, Packing, check_tokens_per_step, plan_step_size
from datamodules.layouts.columns import Candidates, Columns
from datamodules.prepare.cache import prepare, shortfall
from datamodules.prepare.mix import MixedSource, Part, check_mix
from datamodules.prepare.pass_over_sources import PassOverSources, Quotas, require_rows
from datamodules.prepare.stats import DataStats
from datamodules.prepare.token_dataset import TokenDataset
from datamodules.rows.sampling import Order
from datamodules.rows.sources import Source
from datamodules.text.chat_template import HistoryReasoning
from datamodules.text.example import Turns
from datamodules.text.malformed import Dial
from datamodules.text.segments import Template
from datamodules.text.steps import StepSettings
from datamodules.text.tags import Tags
from datamodules.tokens.process import OVERLONG_WARNINGS, Overlong, ProcessedExample
from datamodules.tokens.run_template import RunTemplate
from datamodules.tokens.tokenizer import ThinkTokenizer
from disk import cache_home

log = logging.getLogger("thinkwright")
# The splits that a stage needs. A validation needs no training rows, but it plans the epochs before a fit
SPLITS = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",), "predict": ("test",)}


class MagpieDataModule(LightningDataModule):
    """Rows with an instruction and a response, whose thoughts are in `<think>` blocks.

    Args:
        source: The rows: `builtin`; a .parquet, .jsonl, .json, .csv, .tsv or .arrow file (texts also .gz or .zst), a
            folder or a glob of such files; or the id of a data set on the hub.
        mix: Several sources in place of `source`, each with a weight and settings of its own.
        revision: Commit of the hub data set. Pin it to keep the rows the same. null takes the newest commit.
        split: Split of the hub data set, or of a folder with files like test.jsonl or train-00000-of-00002.parquet.
        config: Part of a hub data set that has several, or of its folder. null: the part that the data set marks.
        order: `sampled` draws the rows by the seed, so the first ones are a fair sample; `file` takes them in order.
        columns: Names of the columns with the texts. A column that is not named is found by its usual names.
        candidates: Columns with several responses to one instruction, and which of them to keep.
        filters: Conditions that a row has to meet, as {column: values to keep} or {column: {min, max}}. `tokens` and
            `steps` stand for the length of the row and its number of think blocks. null keeps every row.
        malformed: Action for responses that are not closed think blocks followed by an answer. `strict` drops them;
            `repair` adds a missing opening tag, keeps harmless shapes and drops the others; `last_close` also takes all
            before the last closing tag of a response with too many for thinking; `keep` keeps all.
        malformed_overrides: Actions for single malformed shapes, as {shape: drop | repair | last_close | keep}. The
            shapes are in docs/data.md. null leaves every shape to `malformed`.
        template: The text before the response: `instruction` (the recipe's), `chat` (the model's own chat template), a
            Jinja file, or a Jinja text with {{ instruction }}, or with messages like a chat template. The end-of-
            sequence token follows the response.
        system: System prompt, for templates that have a place for it. null takes the template's own.
        turns: Answers of a conversation to train on: `last`, `each` (a row for each), `all` (in one row).
        history_reasoning: Reasoning of earlier answers in a prompt: `keep`, `drop`, or `template`, which does as the
            model's chat template does, and keeps it in other templates.
        tags: Tags around a thought in training. The model's own tokens are used if it has these tags, otherwise the
            tags are added to its vocabulary.
        source_tags: Tags around a thought in the data. null: the same as `tags`.
        new_tokens: Further tokens to add to the vocabulary, like <step>. Each is one token wherever it occurs in a row;
            its embeddings are trained. A token that the model has, like <tool_call> of Qwen, stays text without this.
        steps: How a thought is split into steps. Each step gets a think block of its own.
        max_length: Longest row, in tokens: prompt, thoughts, answer and end.
        overlong: Action for a row longer than max_length. `drop` drops it, `truncate_thoughts` drops steps from
            the middle of its reasoning (hurts: arXiv 2502.07374), `truncate` drops its end (teaches unclosed blocks).
        near_duplicate_threshold: Lowest similarity (0 to 1) at which two instructions count as near duplicates. The
            later of two is dropped if one is held out and one is not. null: only equal instructions are duplicates.
        heldout_ratio: Ratio of the instructions that are held out from training, for validation and test.
        seed: Seed of the held-out rows, of the built-in rows and of the order of training rows.
        train_rows: Number of training rows to keep. Preparation ends when every split is full. null keeps all rows.
        val_rows: Number of held-out rows for validation. null keeps all.
        test_rows: Number of further held-out rows, for test and predict only. null keeps all.
        batch_size: Rows in a training micro-batch of a device; if packed, at most batch_size x max_length tokens.
        packing: How rows form a micro-batch. `none` takes batch_size rows, `packed` as many whole rows as fit into
            batch_size x max_length tokens. No row is padded or attends to another. `auto` packs on GPUs only.
        tokens_per_step: Supervised tokens of an optimizer step with packed rows. null: the mean of an unpacked step.
        val_batch_size: Rows in a batch of one device in validation, test and predict.
        num_workers: Threads per device that make the next batches. 0 makes each batch when it is needed.
        num_proc: Processes that prepare rows, if a source has more than a few thousand. 1 uses the main process only.
        cache_dir: Folder for prepared rows, which can be deleted; null: thinkwright in $XDG_CACHE_HOME or ~/.cache.
        tokenizer: Model whose tokenizer is used. The same as model.name.
        tokenizer_revision: Commit of that model. The same as model.revision.
    """

    def __init__(
        self,
        source: str = "builtin",
        mix: list[MixedSource] | None = None,
        revision: str | None = None,
        split: str = "train",
        config: str | None = None,
        order: Order = "sampled",
        columns: Columns = Columns(),  # noqa: B008 (read as the default of a nested config, never changed)
        candidates: Candidates = Candidates(),  # noqa: B008
        filters: dict[str, Any] | None = None,
        malformed: Dial = "repair",
        malformed_overrides: dict[str, str] | None = None,
        template: str = "instruction",
        system: str | None = None,
        turns: Turns = "last",
        history_reasoning: HistoryReasoning = "template",
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
        cache_dir: str | None = None,
        tokenizer: str = "assets/tiny-qwen",
        tokenizer_revision: str | None = None,
    ) -> None:
        super().__init__()
        self.mix = [MixedSource(source, None, revision, split, config)] if mix is None else mix
        self._sources = [
            one.with_defaults(columns, candidates, source_tags or tags, malformed, malformed_overrides, filters)
            for one in self.mix
        ]
        self.columns, self.candidates, self.filters = columns, candidates, filters
        self.malformed, self.malformed_overrides = malformed, malformed_overrides
        self.run_template = RunTemplate(template, system, history_reasoning, turns)
        self.tags, self.source_tags, self.new_tokens = tags, source_tags, tuple(new_tokens)
        self.steps, self.max_length, self.overlong = steps, max_length, overlong
        self.near_duplicate_threshold, self.heldout_ratio, self.seed = near_duplicate_threshold, heldout_ratio, seed
        self.order: Order = order
        self.rows_wanted: Quotas = {"train": train_rows, "val": val_rows, "test": test_rows}
        self.batch_size, self.val_batch_size, self.num_workers = batch_size, val_batch_size, num_workers
        self.packing, self.tokens_per_step = packing, tokens_per_step
        self.num_proc, self.cache_dir = num_proc, Path(cache_dir).expanduser() if cache_dir else cache_home()
        self.tokenizer_name, self.tokenizer_revision = tokenizer, tokenizer_revision
        self.splits: dict[str, TokenDataset] = {}
        self.stats = DataStats()
        self.trains = False  # True for the validation before a fit: it plans the epochs, so an error comes early
        self.epochs: EpochLayout | None = None  # the plan of the epochs of a fit
        self.batches_done: Callable[[], int] | None = None  # set before a fit: processed batches of all epochs
        self._announced: Path | None = None
        self._planned_for: tuple[Path, StepSize] | None = None
        self._check()

    def _check(self) -> None:
        """Raise UserError for settings that contradict each other."""
        self.tags.check("data.tags")
        self.steps.check()
        check_tokens_per_step(self.packing, self.tokens_per_step)
        check_mix(self._sources, self.rows_wanted)

    @property
    def think_tokenizer(self) -> ThinkTokenizer:
        """The tokenizer with the tags and the new tokens."""
        return ThinkTokenizer.load(self.tokenizer_name, self.tokenizer_revision, self.tags, self.new_tokens)

    @property
    def template(self) -> Template:
        """The template for this model. Raises UserError if it does not suit the model."""
        return self.run_template.load(self.think_tokenizer)

    def open_sources(self) -> list[Source]:
        """Return the sources. Raises UserError for a source that does not exist."""
        return [one.open(self.heldout_ratio, self.seed, self.order) for one in self.mix]

    def parts(self) -> list[Part]:
        """Return the sources with their processing and weights."""
        common = self.template, self.steps, self.max_length, self.overlong, self.run_template.turns
        opened = zip(self._sources, self.open_sources(), strict=True)
        return [Part(source, one.processing(*common), one.weight) for one, source in opened]

    def processed_examples(self, limit: int | None = None) -> Iterator[tuple[ProcessedExample, str, str | None]]:
        """Return the first rows as (example with texts, name of its source, its split or None if dropped).

        `stats` is filled while they are read. Nothing is cached.
        """
        source_pass = PassOverSources(
            self.parts(), self.think_tokenizer.encoder, self.rows_wanted, self.near_duplicate_threshold, texts=True
        )
        self.stats = source_pass.stats
        return islice(iter(source_pass), limit)

    def _prepare(self, stage: str) -> tuple[Path, DataStats]:
        """Return the prepared folder, the same for every stage. Raise UserError if a split of the stage is empty."""
        tokenizer, parts = self.think_tokenizer, self.parts()
        self.pad_id = tokenizer.end_id
        threshold = self.near_duplicate_threshold
        folder, stats = prepare(parts, tokenizer, self.rows_wanted, threshold, self.cache_dir, self.num_proc)
        require_rows(stats, parts, SPLITS[stage])
        return folder, stats

    def prepare_data(self) -> None:
        """Prepare the rows once per machine, before a model is loaded. The other ranks find them on disk."""
        assert self.trainer is not None and self.trainer.state.fn is not None
        self._prepare(str(self.trainer.state.fn.value))

    def setup(self, stage: str) -> None:
        """Open the prepared rows, print their stats once, and plan the epochs of a fit."""
        trains = stage == "fit" or self.trains
        folder, self.stats = self._prepare(stage)
        if folder != self._announced:
            self._announced = folder
            lines = [*self.stats.lines(self.max_length), *shortfall(self.stats, self.rows_wanted, SPLITS[stage])]
            if self.overlong != "drop":
                lines.append(OVERLONG_WARNINGS[self.overlong])
            for line in [*lines, f"data: prepared in {folder}"]:
                log.info(line)
        self.splits = {split: TokenDataset(folder / f"{split}.arrow") for split in self.stats.kept}
        if trains:
            self._plan_epochs(folder)

    def identity(self) -> dict[str, Any]:
        """Return the digests of the prepared rows and the settings behind them, as plain JSON for a checkpoint."""
        return same_rows.identity(self)

    def check_same_rows(self, saved: Mapping[str, Any]) -> None:
        """Raise UserError if the rows of this run differ from the rows of `saved`, the identity in a checkpoint."""
        same_rows.check_same_rows(saved, self.identity())

    def seen_warning(self, saved: Mapping[str, Any] | None) -> str | None:
        """Return a line if the run of `saved`, a checkpoint's identity, may have seen test rows; None otherwise."""
        return same_rows.seen_warning(saved, same_rows.settings_of(self)) if saved else None

    def _plan_epochs(self, folder: Path) -> None:
        """Plan the epochs, if they are not yet planned for these rows and sizes. A fit calls this repeatedly."""
        trainer, rows = self.trainer, self.splits["train"]
        assert trainer is not None
        unpacked = StepSize(self.batch_size, trainer.accumulate_grad_batches, trainer.world_size)
        if self._planned_for != (folder, unpacked):
            given = self.packing, self.max_length, self.tokens_per_step, trainer.strategy.root_device.type, self.seed
            self.epochs = plan_step_size(rows.lengths, rows.supervised, unpacked, *given)
            self._planned_for = folder, unpacked
            log.info(self.epochs.line())
            in_validation = len(self._evaluation_plan("val"))
            check_limits(trainer, self.batches_per_epoch()[0], self.sizes().accumulate, in_validation)

    def sizes(self) -> StepSize:
        """Return the size of an optimizer step."""
        assert self.epochs is not None
        return self.epochs.step_size

    def batches_per_epoch(self) -> tuple[int, int]:
        """Return the number of planned batches of a rank, and of used ones (trainer.limit_train_batches)."""
        assert self.trainer is not None and self.epochs is not None
        planned = self.epochs.steps * self.epochs.step_size.accumulate
        return planned, used_batches(self.trainer.limit_train_batches, planned)

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of an epoch."""
        return -(-self.batches_per_epoch()[1] // self.sizes().accumulate)

    def train_dataloader(self) -> PlanLoader:
        trainer = self.trainer
        assert trainer is not None
        rows, sizes = self.splits["train"], self.sizes()

        def batches(epoch: int, start: int) -> PlannedBatches:
            epoch = 0 if trainer.overfit_batches else epoch  # type: ignore[attr-defined]  # the same rows each time
            plan = plan_epoch(rows.lengths, rows.supervised, sizes, self.seed, epoch)
            return self._loader("train", [batch[trainer.global_rank] for batch in plan.batches[start:]])

        assert self.batches_done is not None
        return PlanLoader(*self.batches_per_epoch(), batches, self.batches_done)

    def val_dataloader(self) -> PlannedBatches:
        return self._evaluation("val")

    def test_dataloader(self) -> PlannedBatches:
        return self._evaluation("test")

    def predict_dataloader(self) -> PlannedBatches:
        return self._evaluation("test")

    def _evaluation(self, split: str) -> PlannedBatches:
        return self._loader(split, [PlannedBatch(rows, 0) for rows in self._evaluation_plan(split)])

    def _evaluation_plan(self, split: str) -> list[tuple[int, ...]]:
        assert self.trainer is not None
        rank, ranks = self.trainer.global_rank, self.trainer.world_size
        return plan_evaluation(len(self.splits[split]), self.val_batch_size, rank, ranks)

    def _loader(self, split: str, planned: list[PlannedBatch]) -> PlannedBatches:
        return PlannedBatches(self.splits[split], planned, self.pad_id, self.num_workers)
