"""The gradient norm of an optimizer step. A NaN or infinity ends training before the update, with a file for replay."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from datamodules.batches.collate import Batch
from errors import UserError
from lightning_modules.ranks import from_all_ranks

LEAST_SCALE = 1.0  # at a higher scale an overflow is a gradient scaler's way to find a lower one
SHOWN_ROWS = 8  # row ids in the message


class NotFinite(UserError):
    """A loss or gradient is NaN or infinite. All ranks raise it together, before the update."""

    together = True


@dataclass
class Attempt:
    """A micro-batch of the current optimizer step, with the seed of its dropout."""

    batch: Batch
    seed: int
    loss: Tensor  # () detached


class ReplayWriter(Protocol):
    """Writes the micro-batches of a broken optimizer step for `python cli.py replay`."""

    def path(self, step: int, rank: int) -> Path:
        """Return the file of a rank; `step` counts the optimizer steps before the broken one."""

    def write(self, tuner: LightningModule, step: int, attempts: Sequence[Attempt]) -> None:
        """Write the file of this rank. Every rank must call it."""


def propagate_nan(total: Tensor) -> Tensor:
    """Return the loss, with a NaN gradient if the loss is not finite.

    The common gradient then tells all ranks without further communication. An infinite loss can have a finite gradient.
    """
    return total * torch.where(total.detach().isfinite(), 1.0, torch.nan)


@dataclass
class Pending:
    """A gradient norm on its way from the device to the host."""

    step: int  # optimizer steps before it
    attempts: list[Attempt]
    norm: Tensor  # () on the host
    arrived: torch.cuda.Event | None


class Gradients:
    """The gradient of an optimizer step: its norm, computed once, and the check that it is finite.

    A fused AdamW skips an update by itself if the device finds NaN or infinity. The host then checks the norm later: at
    the next step, log line, validation or checkpoint. Until then nothing is updated and nothing is written.
    """

    def __init__(self) -> None:
        self.attempts: list[Attempt] = []
        self.replay: ReplayWriter | None = None
        self.skipped = 0  # optimizer steps that a gradient scaler skipped
        self._norm = 0.0
        self._pending: Pending | None = None

    def norm(self, optimizer: torch.optim.Optimizer, step: int) -> Tensor:
        """Return the L2 norm () of all gradients, over all ranks if they are sharded; `step` steps are done before."""
        norm = get_total_norm([p.grad for p in _parameters(optimizer) if p.grad is not None])
        whole: Tensor = norm.full_tensor() if hasattr(norm, "full_tensor") else norm  # of a DTensor
        fused, arrived = optimizer.defaults.get("fused"), None
        if fused:
            optimizer.found_inf = (~whole.isfinite()).float()  # type: ignore[attr-defined]  # as a gradient scaler does
        if fused and whole.is_cuda:
            host = torch.empty((), dtype=whole.dtype, pin_memory=True).copy_(whole.detach(), non_blocking=True)
            arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            arrived.record()
        else:
            host = whole.detach().cpu()
        self._pending = Pending(step, self.attempts, host, arrived)
        return whole

    def clip(self, optimizer: torch.optim.Optimizer, norm: Tensor, limit: float) -> None:
        clip_grads_with_norm_(_parameters(optimizer), limit, norm)

    def check_finite(self, tuner: LightningModule, known_only: bool = False) -> None:
        """Check the last norm, unless it was checked before; with `known_only` skip a norm that has not arrived.

        Raise NotFinite on all ranks if the norm is not finite, unless a gradient scaler is still finding its scale.
        """
        if self._pending is None or (known_only and self._pending.arrived is not None):
            return
        pending, self._pending = self._pending, None
        if pending.arrived is not None:
            pending.arrived.synchronize()
        self._norm = float(pending.norm)
        if self._norm - self._norm == 0:  # neither infinite nor NaN
            return
        step, rank = pending.step, tuner.global_rank
        described = from_all_ranks([describe(pending.attempts, rank)])
        found = {rank: line for rank, line in enumerate(described) if line}
        scaler = getattr(tuner.trainer.precision_plugin, "scaler", None)
        if not found and scaler is not None and scaler.get_scale() > LEAST_SCALE:
            self.skipped += 1
            return
        look = ""
        if self.replay is not None:
            self.replay.write(tuner, step, pending.attempts)
            look = f"look with python cli.py replay {self.replay.path(step, next(iter(found), 0))}; "
        what = "; ".join(found.values()) or f"gradient norm {self._norm}, losses finite"
        fix = "no weight was updated and checkpoints are intact: lower model.optim.lr or repair the rows, then resume"
        raise NotFinite(
            "training",
            f"optimizer step {step + 1}",
            f"is not finite ({what})",
            f"{look}{fix} with --ckpt_path last",
        )

    def figures(self) -> dict[str, float]:
        """Return figures for the log: the last checked norm, before clipping, and the skipped steps, if any."""
        return {"grad_norm": self._norm} | ({"skipped_steps": float(self.skipped)} if self.skipped else {})


def _parameters(optimizer: torch.optim.Optimizer) -> list[torch.nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def describe(attempts: Sequence[Attempt], rank: int) -> str | None:
    """Return a rank's micro-batches whose loss is not finite, with the ids of their rows; None if there are none."""
    bad = [attempt for attempt in attempts if not attempt.loss.isfinite()]
    if not bad:
        return None
    rows = [row_id for attempt in bad for row_id in attempt.batch.row_ids]
    named = ", ".join(rows[:SHOWN_ROWS]) + (f" and {len(rows) - SHOWN_ROWS} more" if len(rows) > SHOWN_ROWS else "")
    return f"rank {rank}: loss {float(bad[0].loss)} of rows {named}"
