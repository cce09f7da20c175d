"""This project's side: ThinkTuner in a lightning.Trainer, as in `fit`, with examples from the file of rows.py.

This project always trains the embeddings of `<think>` and `</think>`. If the peers do not train them, their learning
rate is 1e-15 here: the work is done, and the losses stay comparable.
"""

import time
import warnings
from typing import Any

from lightning.pytorch import Callback, LightningDataModule, Trainer

from benchmarks.speed.adapters import same_start
from benchmarks.speed.record import Steps
from benchmarks.speed.rows import Rows
from datamodules.batches.loader import PlannedBatches
from datamodules.batches.plan import PlannedBatch
from datamodules.prepare.token_dataset import TokenExample
from lightning_modules.net.lora import LoraSettings
from lightning_modules.run.throughput import Throughput
from lightning_modules.think_tuner import ThinkTuner
from lightning_modules.update.optim import OptimSettings

STILL = 1e-15  # a learning rate that changes nothing
PRECISION: dict[str, Any] = {"float32": "32-true", "bfloat16": "bf16-mixed", "float16": "16-mixed"}


class FileExamples:
    """The dataset that PlannedBatches reads."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows

    def __getitem__(self, index: int) -> TokenExample:
        return TokenExample(index, str(index), "all", *self.rows.row(index))


class GivenSteps(LightningDataModule):
    """The planned steps, with the project's own collation and loader."""

    def __init__(self, task: dict[str, Any], rows: Rows) -> None:
        super().__init__()
        self.rows, self.workers = rows, task["workers"]
        supervised = zip(task["steps"], task["supervised"], strict=True)
        self.planned = [PlannedBatch(tuple(step), tokens) for step, tokens in supervised]
        self.steps_per_epoch = len(self.planned)
        # Throughput reads them: the capacity of a batch
        self.batch_size, self.max_length = 1, max(map(sum, task["lengths"]))

    def train_dataloader(self) -> PlannedBatches:
        return PlannedBatches(FileExamples(self.rows), self.planned, 0, self.workers)  # type: ignore[arg-type]


class Recorder(Callback):
    def __init__(self, steps: Steps) -> None:
        self.steps = steps

    def on_fit_start(self, trainer: Trainer, pl_module: Any) -> None:
        assert same_start(pl_module), "no LoRA found"

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        self.steps.begin()

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.steps.end(outputs["loss"])


def run(task: dict[str, Any], steps: Steps) -> dict[str, Any]:
    """Train. `task["options"]` are further arguments of ThinkTuner."""
    warnings.filterwarnings("ignore", ".*")
    started = time.perf_counter()
    data = GivenSteps(task, Rows.load(task["rows"]))
    prepared = time.perf_counter()
    lora = LoraSettings(rank=task["rank"], alpha=task["alpha"], target_modules=task["targets"])
    optim = OptimSettings(lr=task["lr"], new_token_lr=None if task["train_new_tokens"] else STILL)
    tuner = ThinkTuner(task["model"], dtype=task["dtype"], lora=lora, optim=optim, **task["options"])
    trainer = Trainer(
        accelerator="gpu" if task["device"] == "cuda" else "cpu", devices=1, precision=PRECISION[task["dtype"]],
        max_epochs=1, gradient_clip_val=1.0, log_every_n_steps=50, limit_val_batches=0, num_sanity_val_steps=0,
        enable_model_summary=False, enable_progress_bar=False, enable_checkpointing=False, logger=False,
        use_distributed_sampler=False, callbacks=[Throughput(), Recorder(steps)],
    )  # fmt: skip
    trainer.fit(tuner, data)
    return {"prepare": prepared - started, "start": steps.begun - prepared, "path": path(tuner)}


def path(tuner: ThinkTuner) -> str:
    """A description of the code that ran."""
    net: Any = tuner.net
    layers = "fused layers" if net.not_fused is None else f"transformers' layers ({net.not_fused})"
    attention = net.causal_lm.config._attn_implementation
    return f"packed, attention {attention}, {layers}, head for supervised positions in chunks"
