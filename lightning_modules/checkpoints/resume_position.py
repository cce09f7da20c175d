"""Where training stands between two optimizer steps, and how a fit goes on from there.

A checkpoint says so in our own terms, and Lightning's counters are set from it when a fit is resumed: they count
batches of one rank, so they mean nothing with other devices, and they take some moments for others (an epoch that
max_steps cut short for a whole one, a validation that was broken off for one that was done).
"""

from dataclasses import asdict, dataclass
from typing import Any

from datamodules.batches.plan import StepSize


@dataclass(frozen=True)
class ResumePosition:
    """Optimizer steps done, and how the epoch that they are counted in was cut."""

    epoch: int  # epochs that are complete
    step: int  # optimizer steps done in the one after them
    global_step: int  # optimizer steps done in all
    validation_due: bool  # the validation that belongs to this step was not finished
    steps_per_epoch: int
    sizes: StepSize

    @classmethod
    def of(cls, trainer: Any, steps_per_epoch: int, sizes: StepSize, in_validation: bool) -> "ResumePosition":
        """At any moment of a fit; in the middle of accumulation it is the last optimizer step that was done."""
        done = int(trainer.fit_loop.epoch_loop.batch_progress.total.processed)
        steps, left = divmod(done, sizes.accumulate)
        epoch, step = divmod(steps, steps_per_epoch)
        return cls(epoch, step, trainer.global_step, in_validation and not left, steps_per_epoch, sizes)

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> "ResumePosition":
        return cls(**saved | {"sizes": StepSize(**saved["sizes"])})

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def carried_over(self, steps_per_epoch: int, sizes: StepSize) -> tuple["ResumePosition", str | None]:
        """The position in epochs that are cut in another way, and what is not exact then; None if all is."""
        moved = {"steps_per_epoch": steps_per_epoch, "sizes": sizes}
        if (steps_per_epoch, sizes) == (self.steps_per_epoch, self.sizes):
            return self, None
        there = f"{self.sizes.described()}, now {sizes.described()}"
        if steps_per_epoch == self.steps_per_epoch and sizes.rows_of_a_step == self.sizes.rows_of_a_step:
            note = f"the checkpoint was written with {there}: the same rows a step, so the same losses up to rounding"
            return ResumePosition(**vars(self) | moved), note
        note = f"the checkpoint was written with {there}, {self.steps_per_epoch:,} steps an epoch, now "
        note += f"{steps_per_epoch:,}: "
        if self.step:
            note += f"epoch {self.epoch + 1} begins anew, so the rows of its first {self.step:,} steps are seen again"
        else:
            note += "it goes on with the next epoch, whose steps are other ones"
        return ResumePosition(**vars(self) | moved | {"step": 0, "validation_due": False}), note

    def apply_to(self, checkpoint: dict[str, Any]) -> None:
        """Sets Lightning's counters in a checkpoint to this position, as if it had just come here."""
        loop = checkpoint["loops"]["fit_loop"]
        in_epoch, batches = self.step * self.sizes.accumulate, self.sizes.accumulate
        total = self.epoch * self.steps_per_epoch * batches + in_epoch
        begun = self.epoch + (self.step > 0)
        for counts in (loop["epoch_progress"]["total"], loop["epoch_progress"]["current"]):
            counts.update(ready=begun, started=begun, processed=self.epoch, completed=self.epoch)
        _set(loop["epoch_loop.batch_progress"], total, in_epoch)
        loop["epoch_loop.batch_progress"]["is_last_batch"] = False
        _set(loop["epoch_loop.val_loop.batch_progress"], 0, 0)
        loop["epoch_loop.val_loop.batch_progress"]["is_last_batch"] = False
        _set(loop["epoch_loop.scheduler_progress"], self.global_step, self.step)
        optimizer = loop["epoch_loop.automatic_optimization.optim_progress"]["optimizer"]
        for counter in ("step", "zero_grad"):
            _set(optimizer[counter], self.global_step, self.step)
        loop["epoch_loop.state_dict"]["_batches_that_stepped"] = self.global_step
        for schedule in checkpoint["lr_schedulers"]:
            schedule["last_epoch"] = self.epoch * self.steps_per_epoch + self.step
            schedule["_step_count"] = schedule["last_epoch"] + 1


def _set(progress: dict[str, Any], total: int, current: int) -> None:
    for name, value in (("total", total), ("current", current)):
        progress[name] = dict.fromkeys(progress[name], value)
