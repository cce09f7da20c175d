"""Returns freed memory to the system while a fit runs on a CPU.

The batches of a fit have different lengths, so freed tensors leave gaps in glibc's heap that later ones do not fit. The
heap grows over the first hundred steps. Trimming it releases the gaps. A trim after each step costs a tenth of the
time of a step, because new pages have to be cleared; after every tenth step it costs a hundredth.
"""

import ctypes
import sys
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

STEPS = 10  # optimizer steps between two trims


class FreedMemory(Callback):
    """Trims the heap after every STEPS-th optimizer step, and after each validation. Does nothing without glibc or on a
    GPU."""

    def __init__(self) -> None:
        library = ctypes.CDLL(None) if sys.platform == "linux" else None
        self._trim = getattr(library, "malloc_trim", None)  # glibc only: musl has none
        self._trimmed_at = 0

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if trainer.global_step >= self._trimmed_at + STEPS:
            self._trimmed_at = trainer.global_step
            self.trim(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.trim(trainer)

    def trim(self, trainer: Trainer) -> None:
        if self._trim is not None and trainer.strategy.root_device.type == "cpu":
            self._trim(0)
