"""A loss or gradient that is not finite ends training before the optimizer step, with what it takes to see it again."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from datamodules.collate import Batch
from errors import UserError
from lightning_modules.checkpoint import write_checkpoint
from lightning_modules.metrics import from_all_ranks
from lightning_modules.runs import Run

if TYPE_CHECKING:
    from lightning_modules.think_tuner import ThinkTuner

LEAST_SCALE = 1.0  # of a gradient scaler; an overflow at a higher one is its way of finding a lower one
NAMED = 8  # rows in the message


class NotFinite(UserError):
    """Raised by all ranks at once. Nothing was updated; the last checkpoint is good."""

    together = True


@dataclass
class Attempt:
    """One micro-batch of the optimizer step under way, with what its dropout began from."""

    batch: Batch
    seed: int
    loss: Tensor  # () detached


def poisoned(total: Tensor) -> Tensor:
    """The loss, with a gradient that is NaN where the loss is not finite: so every rank sees it in the common gradient,
    without asking. A loss can be infinite where its own gradient is finite."""
    return total * torch.where(total.detach().isfinite(), 1.0, torch.nan)


class Gradients:
    """The gradient of the optimizer step under way: its norm, taken once, and what to do where it is not finite."""

    def __init__(self) -> None:
        self.attempts: list[Attempt] = []
        self.run: Run | None = None  # whose folder a step that breaks is written to, for replay
        self.skipped = 0  # optimizer steps that a gradient scaler left out
        self._norm = 0.0

    def norm(self, optimizer: torch.optim.Optimizer) -> Tensor:
        """() the L2 norm of all gradients, over all ranks where they are sharded."""
        norm = get_total_norm([p.grad for p in _parameters(optimizer) if p.grad is not None])
        whole = norm.full_tensor() if hasattr(norm, "full_tensor") else norm  # of a DTensor
        self._norm = float(whole)  # the one place of a step where the host waits for the device
        return whole

    def clip(self, optimizer: torch.optim.Optimizer, norm: Tensor, limit: float) -> None:
        clip_grads_with_norm_(_parameters(optimizer), limit, norm)

    def check(self, tuner: "ThinkTuner") -> None:
        """Raises NotFinite, on all ranks, unless the norm is finite or a gradient scaler is about to find its scale."""
        if self._norm - self._norm == 0:  # neither infinite nor NaN
            return
        step, rank = tuner.trainer.global_step, tuner.global_rank
        found = [line for line in from_all_ranks([describe(self.attempts, rank)]) if line]
        scaler = getattr(tuner.trainer.precision_plugin, "scaler", None)
        if not found and scaler is not None and scaler.get_scale() > LEAST_SCALE:
            self.skipped += 1
            return
        file = self.run.folder / "nonfinite" / f"step-{step + 1}-rank-{rank}.replay" if self.run else None
        if file is not None:
            content: dict[str, Any] = {"state_dict": tuner.trainer.strategy.lightning_module_state_dict()}
            tuner.on_save_checkpoint(content)
            write_replay(file, self.attempts, content)
        raise not_finite(step, found, self._norm, file)

    def figures(self) -> dict[str, float]:
        """For the log: the norm before clipping, and the steps left out so far if there were any."""
        return {"grad_norm": self._norm} | ({"skipped_steps": float(self.skipped)} if self.skipped else {})


def _parameters(optimizer: torch.optim.Optimizer) -> list[torch.nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def write_replay(path: Path, attempts: Sequence[Attempt], content: dict[str, Any]) -> None:
    """What `python cli.py replay` reads: a checkpoint's content, and the micro-batches of the broken step. It lies in a
    folder of the run, as checkpoints do, so that the run is found from the file."""
    batches = [
        {field.name: getattr(attempt.batch.to("cpu"), field.name) for field in fields(Batch)} for attempt in attempts
    ]
    write_checkpoint(content | {"batches": batches, "seeds": [attempt.seed for attempt in attempts]}, path)


def describe(attempts: Sequence[Attempt], rank: int) -> str | None:
    """Which micro-batches of this rank have a loss that is not finite, and their rows; None if none has."""
    bad = [attempt for attempt in attempts if not attempt.loss.isfinite()]
    if not bad:
        return None
    rows = [row_id for attempt in bad for row_id in attempt.batch.row_ids]
    named = ", ".join(rows[:NAMED]) + (f" and {len(rows) - NAMED} more" if len(rows) > NAMED else "")
    return f"rank {rank}: loss {float(bad[0].loss)} of rows {named}"


def not_finite(step: int, found: Sequence[str], norm: float, file: Path | None) -> NotFinite:
    """`found`: what `describe` says of each rank; empty where only the gradient is not finite."""
    what = "; ".join(found) if found else f"gradient norm {norm}, losses finite"
    fix = f"look with python cli.py replay {file}; " if file else ""
    fix += "nothing was updated and checkpoints are as they were: lower model.optim.lr or repair the rows, and go on"
    fix += " with --ckpt_path last"
    return NotFinite("training", f"optimizer step {step + 1}", f"is not finite ({what})", fix)
