"""The speed of a fit: tokens and rows per second, fill of the batches, memory, MFU and the remaining time.

Everything is counted on the host, from what a Batch says about itself, so no step waits for the device. Rates are
computed when train/loss is logged, every `trainer.log_every_n_steps` optimizer steps: then the host waits anyway.
"""

import resource
import time
from dataclasses import dataclass, fields
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from datamodules.batches.collate import Batch
from lightning_modules.run.flops import ModelShape, peak_flops, training_flops
from lightning_modules.update.precision import MIXED


@dataclass
class Counts:
    """Totals of training, without evaluation. All but supervised_tokens are of this rank."""

    seconds: float = 0.0
    steps: int = 0  # optimizer steps
    supervised_tokens: int = 0  # of all ranks
    rows: int = 0
    tokens: int = 0
    capacity: int = 0  # tokens that its batches had room for
    flops: float = 0.0

    def __sub__(self, before: "Counts") -> "Counts":
        return Counts(*(getattr(self, f.name) - getattr(before, f.name) for f in fields(self)))

    def copy(self) -> "Counts":
        return self - Counts()


class Throughput(Callback):
    """Computes the speed of a fit for the log, and for summary.json.

    The counts are part of a checkpoint, so the summary of a resumed fit includes the training before. `hours_left` is
    without evaluation.
    """

    def __init__(self) -> None:
        self.counts = Counts()
        self._started: float | None = None  # while training, not evaluating
        self._logged = Counts()  # the counts at the last log
        self._shape: ModelShape | None = None
        self._peak: float | None = None  # FLOP/s of the GPU at most
        self._total_steps = -1  # optimizer steps of the fit; 0 or less: unknown

    def state_dict(self) -> dict[str, Any]:
        return vars(self._counts_now())

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.counts = Counts(**state_dict)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        tuner: Any = pl_module
        self._started, self._logged = time.perf_counter(), self.counts.copy()
        self._total_steps = tuner.total_steps()
        if tuner.device.type == "cuda":
            dtype = MIXED.get(str(trainer.precision), getattr(torch, tuner.dtype_name))
            self._peak = peak_flops(torch.cuda.get_device_name(tuner.device), dtype)
        if self._peak is not None:
            self._shape = ModelShape.of(tuner.net)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Runs before the hook of ThinkTuner, which logs `speed`."""
        counts, data = self.counts, trainer.datamodule  # type: ignore[attr-defined]
        if batch.indices:  # an empty batch only keeps the ranks in step
            counts.rows += len(batch.indices)
            counts.tokens += sum(batch.lengths)
            counts.capacity += data.batch_size * data.max_length
            if self._shape is not None:
                counts.flops += training_flops(self._shape, batch.lengths, len(batch.predict_from))
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        counts.supervised_tokens += batch.step_tokens
        counts.steps += 1
        if trainer.global_step % int(trainer.log_every_n_steps) == 0:  # type: ignore[attr-defined]
            self._log(trainer, pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._pause()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == TrainerFn.FITTING:  # no training follows in `validate`
            self._started = time.perf_counter()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._pause()

    def _log(self, trainer: Trainer, pl_module: LightningModule) -> None:
        now = self._counts_now()
        since = now - self._logged
        speed = self.rates(since, trainer.world_size)
        if self._total_steps > 0:
            left = max(0, self._total_steps - trainer.global_step)
            speed["hours_left"] = left * since.seconds / since.steps / 3600
        pl_module.speed = speed  # type: ignore[assignment]
        self._logged = now

    def rates(self, since: Counts, ranks: int) -> dict[str, float]:
        """Return the rates of a difference of two counts, as if every rank had as many rows as this one."""
        if not (since.seconds and since.capacity):
            return {}
        rates = {
            "tokens_per_second": since.supervised_tokens / since.seconds,
            "rows_per_second": since.rows * ranks / since.seconds,
            "packing_efficiency": since.tokens / since.capacity,
            "peak_memory_gb": peak_memory() / 1e9,
        }
        if self._peak is not None:
            rates["mfu"] = since.flops / since.seconds / self._peak
        return rates

    def _counts_now(self) -> Counts:
        counts = self.counts.copy()
        counts.seconds += time.perf_counter() - self._started if self._started is not None else 0.0
        return counts

    def _pause(self) -> None:
        self.counts, self._started = self._counts_now(), None

    def figures(self, ranks: int) -> dict[str, float]:
        """Return the speed of the whole fit, for summary.json."""
        counts = self.counts
        rates = self.rates(counts, ranks)
        return {
            "train_seconds": round(counts.seconds, 1),
            "optimizer_steps": counts.steps,
            "supervised_tokens_trained": counts.supervised_tokens,
            "supervised_tokens_per_second": round(rates.pop("tokens_per_second", 0.0), 1),
            **{name: round(value, 4) for name, value in rates.items()},
        }


def peak_memory() -> int:
    """Return the peak memory of this process in bytes: on a GPU that of tensors, else all."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
