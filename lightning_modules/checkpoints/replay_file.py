"""Replay files: an optimizer step that was not finite, with the weights before it, for `python cli.py replay`.

A replay file is a checkpoint without optimizer, plus the micro-batches of the step and the seeds of their dropout.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule

from datamodules.batches.collate import Batch
from errors import UserError
from lightning_modules.checkpoints.checkpoint_file import read_checkpoint, write_checkpoint
from lightning_modules.run.folder import Run
from lightning_modules.update.nonfinite import Attempt

FOLDER = "nonfinite"  # in the run folder, beside checkpoints, so that the run is found from the file


@dataclass(frozen=True)
class Replay:
    """The content of a replay file."""

    checkpoint: dict[str, Any]  # state_dict and CheckpointContent
    batches: list[Batch]  # on the CPU
    seeds: list[int]  # of dropout, one per batch


class ReplayFiles:
    """The replay files of a run, one per step and rank."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def path(self, step: int, rank: int) -> Path:
        """Return the file of a rank; `step` counts the optimizer steps before the broken one."""
        return self.run.folder / FOLDER / f"step-{step + 1}-rank-{rank}.replay"

    def write(self, tuner: LightningModule, step: int, attempts: Sequence[Attempt]) -> None:
        """Write the file of this rank. Every rank must call it, because sharded weights are gathered."""
        checkpoint: dict[str, Any] = {"state_dict": tuner.trainer.strategy.lightning_module_state_dict()}
        tuner.on_save_checkpoint(checkpoint)
        on_cpu = [attempt.batch.to("cpu") for attempt in attempts]
        checkpoint["batches"] = [{one.name: getattr(batch, one.name) for one in fields(Batch)} for batch in on_cpu]
        checkpoint["seeds"] = [attempt.seed for attempt in attempts]
        write_checkpoint(checkpoint, self.path(step, tuner.global_rank))


def read_replay(path: Path) -> Replay:
    """Return the content of a replay file. Raise UserError if `path` is not a whole replay file."""
    if path.suffix != ".replay" or not path.is_file():
        raise UserError("file", path, "is not a replay file", f"give {FOLDER}/step-N-rank-R.replay of a run")
    checkpoint = read_checkpoint(path)
    batches, seeds = checkpoint.pop("batches"), checkpoint.pop("seeds")
    if not checkpoint["state_dict"]:  # with sharded weights only the first rank has them
        first = path.with_name(path.name.split("-rank-")[0] + "-rank-0.replay")
        checkpoint["state_dict"] = read_checkpoint(first)["state_dict"]
    return Replay(checkpoint, [Batch(**batch) for batch in batches], seeds)
