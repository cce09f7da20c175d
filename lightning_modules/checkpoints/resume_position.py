"""The position of training between two optimizer steps, and how a fit resumes from there.

A checkpoint keeps it beside Lightning's own counters, which are set from it on resume. Lightning counts the batches of
one rank, which mean nothing on another number of devices. And Lightning takes an epoch that max_steps cut short for a
complete one, and an interrupted validation for a finished one.
"""

from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from lightning.pytorch import Trainer

from lightning_modules.internals.lightning_internals import LoopCounts, batches_done, set_loop_counts
from lightning_modules.run.fit_data import FitData


@dataclass(frozen=True)
class ResumePosition:
    """Optimizer steps done, and how the epochs were divided into steps."""

    epoch: int  # complete epochs
    step: int  # optimizer steps done in the epoch after them
    global_step: int  # optimizer steps done in all
    validation_due: bool  # the validation after this step was not finished
    steps_per_epoch: int
    accumulate: int  # batches of a rank in an optimizer step
    step_examples: tuple[Any, ...]  # plain values; equal values mean that each step holds the same examples
    sizes: str  # of a step, in words

    @classmethod
    def of(cls, trainer: Trainer, data: FitData, in_validation: bool) -> "ResumePosition":
        """Return the position after the last complete optimizer step, at any moment of a fit."""
        sizes = data.sizes()
        steps, extra_batches = divmod(batches_done(trainer), sizes.accumulate)
        epoch, step = divmod(steps, data.steps_per_epoch)
        due = in_validation and not extra_batches
        return cls(epoch, step, trainer.global_step, due, **_division(data))

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> "ResumePosition":
        """Return the position of a checkpoint. Raise KeyError if a value is missing."""
        return cls(**{field.name: saved[field.name] for field in fields(cls)})

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def carried_over(self, data: FitData) -> tuple["ResumePosition", str | None]:
        """Return the position in the epochs of `data`, and a note on the differences; None if the resume is exact."""
        now = replace(self, **_division(data))
        if now == self:
            return self, None
        note = f"the checkpoint was written with {self.sizes}, now {now.sizes}"
        if (now.steps_per_epoch, now.step_examples) == (self.steps_per_epoch, self.step_examples):
            return now, f"{note}: each step has the same rows, so losses are equal up to rounding"
        note += f", {self.steps_per_epoch:,} steps an epoch, now {now.steps_per_epoch:,}: "
        if self.step:
            note += f"epoch {self.epoch + 1} starts again, so the rows of its first {self.step:,} steps are seen twice"
        else:
            note += "training continues with the next epoch, which has other steps"
        return replace(now, step=0, validation_due=False), note

    def apply_to(self, checkpoint: dict[str, Any]) -> None:
        """Set Lightning's counters in a checkpoint to this position, in place."""
        steps = self.epoch * self.steps_per_epoch + self.step
        in_epoch, batches = self.step * self.accumulate, steps * self.accumulate
        set_loop_counts(checkpoint, LoopCounts(self.epoch, self.step, in_epoch, batches, self.global_step))

    @property
    def extra_steps(self) -> int:
        """Optimizer steps done beyond those of complete epochs and `step`: an epoch that started again has them."""
        return self.global_step - self.epoch * self.steps_per_epoch - self.step


def _division(data: FitData) -> dict[str, Any]:
    """How `data` divides epochs into optimizer steps."""
    sizes = data.sizes()
    return {
        "steps_per_epoch": data.steps_per_epoch,
        "accumulate": sizes.accumulate,
        "step_examples": tuple(sizes.rows_of_a_step),
        "sizes": sizes.described(),
    }
