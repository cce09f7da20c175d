"""Where the time of a fit goes: loading, training, validation and saving. The parts add up to the whole."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from lightning.pytorch import Callback, LightningModule, Trainer

Part = Literal["loading", "training", "validation", "saving"]
PARTS: tuple[Part, ...] = ("training", "validation", "loading", "saving")


class FitTime(Callback):
    """A clock that always runs for one part. It begins with `loading`: rows, model, and later the best checkpoint.

    The time is that of this process since the callback was made; a resumed fit does not count the time before.
    `saving` is writing checkpoints, wherever it happens.
    """

    def __init__(self) -> None:
        self.seconds: dict[Part, float] = dict.fromkeys(PARTS, 0.0)
        self._part: Part = "loading"
        self._since = time.perf_counter()
        self._around: Part = "loading"  # the part that a validation interrupts

    def _enter(self, part: Part) -> None:
        now = time.perf_counter()
        self.seconds[self._part] += now - self._since
        self._part, self._since = part, now

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Count the time of the block as saving."""
        before = self._part
        self._enter("saving")
        try:
            yield
        finally:
            self._enter(before)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._enter("training")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._enter("loading")

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._around = self._part
        self._enter("validation")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._enter(self._around)

    def figures(self) -> dict[str, float]:
        """Return the seconds of each part until now, of all of them, and the share that is not training, 0 to 1."""
        self._enter(self._part)
        total = sum(self.seconds.values())
        shares = {"not_training": round(1 - self.seconds["training"] / total, 4) if total else 0.0}
        return {"seconds": round(total, 1), **{f"{one}_seconds": round(self.seconds[one], 1) for one in PARTS}} | shares

    def line(self) -> str:
        """Return the same in words."""
        found = self.figures()
        total = sum(self.seconds.values()) or 1.0
        parts = ", ".join(f"{one} {100 * self.seconds[one] / total:.0f} %" for one in PARTS)
        return f"time: {found['seconds']:,.0f} s ({parts})"
