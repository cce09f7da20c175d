"""The progress of a command in one line. A terminal shows it as a bar; a file gets a line every half minute."""

import sys
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from tqdm import tqdm

COLUMNS = 80
REFRESH = 0.2  # seconds between two drawings on a terminal
EVERY = 30.0  # seconds between two lines in a file


class Progress(ProgressBar):
    """For a fit: epoch, optimizer steps, loss, supervised tokens a second, and the time left without evaluation. The
    last three are as of the last log (`trainer.log_every_n_steps`). For evaluation: batches."""

    def __init__(self) -> None:
        super().__init__()
        self._enabled, self._bar = True, None  # type: tuple[bool, tqdm[Any] | None]
        self._shown = time.monotonic()

    def disable(self) -> None:
        self._enabled = False

    def enable(self) -> None:
        self._enabled = True

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # Due first: reading the loss each step would make the host wait for a GPU
        if (batch_idx + 1) % trainer.accumulate_grad_batches == 0 and self._is_due():
            tuner: Any = pl_module
            loss = trainer.progress_bar_metrics.get("train/loss")
            self._show(*fit_line(trainer, tuner.total_steps(), tuner.speed, loss))

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *batch: Any) -> None:
        self._evaluation("validation", batch[2], trainer.num_val_batches)

    def on_test_batch_end(self, trainer: Trainer, pl_module: LightningModule, *batch: Any) -> None:
        self._evaluation("test", batch[2], trainer.num_test_batches)

    def on_predict_batch_end(self, trainer: Trainer, pl_module: LightningModule, *batch: Any) -> None:
        self._evaluation("predict", batch[2], trainer.num_predict_batches)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._close()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._close()

    def _evaluation(self, stage: str, batch_idx: int, batches: Sequence[int | float]) -> None:
        if self._is_due():
            done, total = batch_idx + 1, sum(batches)
            self._show(f"{stage}  batch {done:,}/{total:,}", done, total)

    def _is_due(self) -> bool:
        return self._enabled and time.monotonic() - self._shown >= (REFRESH if sys.stderr.isatty() else EVERY)

    def _show(self, text: str, done: int, total: float) -> None:
        self._shown = time.monotonic()
        if not sys.stderr.isatty():
            print(text, file=sys.stderr, flush=True)
            return
        if self._bar is None:
            self._bar = tqdm(bar_format="{desc}  |{bar}|", ncols=COLUMNS, leave=False, file=sys.stderr)
        self._bar.n, self._bar.total = done, total
        self._bar.set_description_str(text)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def fit_line(trainer: Trainer, total: int, speed: dict[str, float], loss: Any) -> tuple[str, int, float]:
    """(text, optimizer steps done, optimizer steps in all). `total` is not above 0 if that is unknown."""
    epochs = f"/{trainer.max_epochs}" if (trainer.max_epochs or 0) > 0 else ""
    done = trainer.global_step
    parts = [f"epoch {trainer.current_epoch + 1}{epochs}", f"step {done:,}" + (f"/{total:,}" if total > 0 else "")]
    if loss is not None:
        parts.append(f"loss {float(loss):.4f}")
    if "tokens_per_second" in speed:
        parts.append(f"{speed['tokens_per_second']:,.0f} tokens/s")
    if "hours_left" in speed:
        parts.append(f"{timedelta(seconds=round(speed['hours_left'] * 3600))} left")
    return "  ".join(parts), done, max(done, total)
