"""How fast a fit is: tokens and rows a second, how full its batches are, memory, model-FLOP utilisation, time left.

All is counted on the host, from what a Batch says of itself, so no step waits for the device. Figures are made when
train/loss is, every `trainer.log_every_n_steps`: then the host waits anyway.
"""

import resource
import time
from dataclasses import dataclass, fields
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from datamodules.batches.collate import Batch
from lightning_modules.run.flops import Shape, peak_flops, training_flops
from lightning_modules.update.precision import MIXED

BAR = {
    "tokens_per_second": "tok/s", "rows_per_second": "rows/s", "packing_efficiency": "full", "peak_memory_gb": "GB",
    "mfu": "MFU", "hours_left": "h left",
}  # fmt: skip


@dataclass
class Counts:
    """Of training; evaluation is not counted."""

    seconds: float = 0.0
    steps: int = 0
    tokens: int = 0  # supervised, of all ranks; what follows is of this rank
    rows: int = 0
    length: int = 0  # tokens, supervised or not
    room: int = 0  # tokens that its batches could have held
    flops: float = 0.0

    def __sub__(self, before: "Counts") -> "Counts":
        return Counts(*(getattr(self, f.name) - getattr(before, f.name) for f in fields(self)))

    def copy(self) -> "Counts":
        return self - Counts()


class Throughput(Callback):
    """Shows the speed of a fit while it runs, and keeps it for the end: of a run that goes on from a checkpoint, of all
    that led there. `train/hours_left` does not know of evaluation."""

    def __init__(self) -> None:
        self.counts = Counts()
        self._begun: float | None = None
        self._shown = Counts()  # as they were at the last log
        self._shape: Shape | None = None
        self._peak: float | None = None  # FLOPs a second that the GPU could do
        self._total = -1  # optimizer steps of the fit; not above 0 where that is not known

    def state_dict(self) -> dict[str, Any]:
        return vars(self._counts_now())

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.counts = Counts(**state_dict)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        tuner: Any = pl_module
        self._begun, self._shown = time.perf_counter(), self.counts.copy()
        self._total = tuner.total_steps()
        if tuner.device.type == "cuda":
            dtype = MIXED.get(str(trainer.precision), getattr(torch, tuner.dtype_name))
            self._peak = peak_flops(torch.cuda.get_device_name(tuner.device), dtype)
        if self._peak is not None:
            self._shape = Shape.of(tuner.net)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Before the hook of ThinkTuner, which logs what is left in `speed`."""
        counts, data = self.counts, trainer.datamodule  # type: ignore[attr-defined]
        if batch.rows:  # one without is there to keep step with the other ranks
            counts.rows += len(batch.rows)
            counts.length += sum(batch.lengths)
            counts.room += data.batch_size * data.max_length
            if self._shape is not None:
                counts.flops += training_flops(self._shape, batch.lengths, len(batch.predict_from))
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        counts.tokens += batch.step_tokens
        counts.steps += 1
        if trainer.global_step % int(trainer.log_every_n_steps) == 0:  # type: ignore[attr-defined]
            self._show(trainer, pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._pause()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == TrainerFn.FITTING:  # a validation of its own is not followed by training
            self._begun = time.perf_counter()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._pause()

    def _show(self, trainer: Trainer, pl_module: LightningModule) -> None:
        now = self._counts_now()
        since = now - self._shown
        speed = self.rates(since, trainer.world_size)
        if self._total > 0:
            left = max(0, self._total - trainer.global_step)
            speed["hours_left"] = left * since.seconds / since.steps / 3600
        pl_module.speed = speed  # type: ignore[assignment]
        for name, value in speed.items():
            pl_module.log(BAR[name], value, prog_bar=True, logger=False)
        self._shown = now

    def rates(self, since: Counts, ranks: int) -> dict[str, float]:
        """Of what was counted since some moment; rows as if all ranks had as many."""
        if not (since.seconds and since.room):
            return {}
        rates = {
            "tokens_per_second": since.tokens / since.seconds,
            "rows_per_second": since.rows * ranks / since.seconds,
            "packing_efficiency": since.length / since.room,
            "peak_memory_gb": peak_memory() / 1e9,
        }
        if self._peak is not None:
            rates["mfu"] = since.flops / since.seconds / self._peak
        return rates

    def _counts_now(self) -> Counts:
        counts = self.counts.copy()
        counts.seconds += time.perf_counter() - self._begun if self._begun is not None else 0.0
        return counts

    def _pause(self) -> None:
        self.counts, self._begun = self._counts_now(), None

    def figures(self, ranks: int) -> dict[str, float]:
        """For summary.json."""
        counts = self.counts
        rates = self.rates(counts, ranks)
        return {
            "train_seconds": round(counts.seconds, 1),
            "optimizer_steps": counts.steps,
            "supervised_tokens_trained": counts.tokens,
            "supervised_tokens_per_second": round(rates.pop("tokens_per_second", 0.0), 1),
            **{name: round(value, 4) for name, value in rates.items()},
        }


def peak_memory() -> int:
    """Bytes that this process held at most: on a GPU of tensors, else of all."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
