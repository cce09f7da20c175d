"""A callback that breaks training, for the tests of resuming."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer


class CrashAfter(Callback):
    """Raises once `step` optimizer steps are done and saved."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == self.step:
            raise RuntimeError("crashed on purpose")
