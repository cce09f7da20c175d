"""The progress of fit, validate, test and predict in one line."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar

from lightning_modules.run.progress_line import AnswerProgress, ProgressLine


class Progress(ProgressBar):
    """For a fit: epoch, optimizer steps, loss, supervised tokens a second, and the time left without evaluation. The
    last three are as of the last log (`trainer.log_every_n_steps`). For evaluation: batches, then answers."""

    def __init__(self) -> None:
        super().__init__()
        self._enabled, self._line = True, ProgressLine()
        self._answers: AnswerProgress | None = None  # of the evaluation that is going on
        self.doing: str | None = None  # what an evaluation is for, if its command says so

    def disable(self) -> None:
        self._enabled = False

    def enable(self) -> None:
        self._enabled = True

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        tuner: Any = pl_module
        tuner.answer_progress = lambda total, ended, tokens: self._answer(tuner, total, ended, tokens)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # Due first: reading the loss each step would make the host wait for a GPU
        if (batch_idx + 1) % trainer.accumulate_grad_batches == 0 and self._is_due():
            tuner: Any = pl_module
            loss = trainer.progress_bar_metrics.get("train/loss")
            self._line.show(*fit_line(trainer, tuner.total_steps(), tuner.speed, loss))

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *batch: Any) -> None:
        self._evaluation("validation", batch[2], trainer.num_val_batches)

    def on_test_batch_end(self, trainer: Trainer, pl_module: LightningModule, *batch: Any) -> None:
        self._evaluation("test", batch[2], trainer.num_test_batches)

    def on_predict_batch_end(self, trainer: Trainer, pl_module: LightningModule, *batch: Any) -> None:
        self._evaluation("predict", batch[2], trainer.num_predict_batches)

    def _answer(self, tuner: Any, total: int, ended: int, tokens: int) -> None:
        if not self._enabled:
            return
        if self._answers is None:
            doing = self.doing or "answering held-out rows"
            self._answers = AnswerProgress(doing, total, tuner.decoding.settings.max_new_tokens, self._line)
        self._answers(ended, tokens)
        if ended == total:
            self._answers = None

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._line.close()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._line.close()

    def _evaluation(self, stage: str, batch_idx: int, batches: Sequence[int | float]) -> None:
        self._answers = None  # an evaluation that was stopped leaves it
        if self._is_due():
            done, total = batch_idx + 1, sum(batches)
            self._line.show(f"{self.doing or stage}  batch {done:,}/{total:,}", done, total)

    def _is_due(self) -> bool:
        return self._enabled and self._line.is_due()


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
