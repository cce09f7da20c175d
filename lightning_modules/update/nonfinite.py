"""A loss or gradient that is not finite ends training before the optimizer step, with what it takes to see it again."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from datamodules.batches.collate import Batch
from errors import UserError
from lightning_modules.checkpoints.checkpoint_file import write_checkpoint
from lightning_modules.ranks import from_all_ranks
from lightning_modules.run.folder import Run

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


def propagate_nan(total: Tensor) -> Tensor:
    """The loss, with a gradient that is NaN where the loss is not finite: so every rank sees it in the common gradient,
    without asking. A loss can be infinite where its own gradient is finite."""
    return total * torch.where(total.detach().isfinite(), 1.0, torch.nan)


@dataclass
class Pending:
    """The norm of an optimizer step's gradient on its way from the device."""

    step: int  # optimizer steps that were done before it
    attempts: list[Attempt]
    norm: Tensor  # () on the host
    arrived: torch.cuda.Event | None


class Gradients:
    """The gradient of an optimizer step: its norm, taken once, and what to do where it is not finite.

    Where the optimizer itself can leave out an update by what the device finds (fused AdamW), the host does not wait
    for the norm: it looks at it when the next step, a log line, a validation or a checkpoint comes. Nothing was updated
    then either, and nothing was written.
    """

    def __init__(self) -> None:
        self.attempts: list[Attempt] = []
        self.run: Run | None = None  # whose folder a step that breaks is written to, for replay
        self.skipped = 0  # optimizer steps that a gradient scaler left out
        self._norm = 0.0
        self._pending: Pending | None = None

    def norm(self, optimizer: torch.optim.Optimizer, step: int) -> Tensor:
        """() the L2 norm of all gradients, over all ranks where they are sharded; of the step after `step` of them."""
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
        """Looks at the last norm, if nobody did yet; with `known_only` not at one that would have to be waited for.

        Raises NotFinite, on all ranks, unless it is finite or a gradient scaler is about to find its scale.
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
        if self.run is not None:
            folder = self.run.folder / "nonfinite"
            content: dict[str, Any] = {"state_dict": tuner.trainer.strategy.lightning_module_state_dict()}
            tuner.on_save_checkpoint(content)
            write_replay(folder / replay_name(step, rank), pending.attempts, content)
            look = f"look with python cli.py replay {folder / replay_name(step, next(iter(found), 0))}; "
        what = "; ".join(found.values()) or f"gradient norm {self._norm}, losses finite"
        fix = "nothing was updated and checkpoints are as they were: lower model.optim.lr or repair the rows, and go on"
        raise NotFinite(
            "training",
            f"optimizer step {step + 1}",
            f"is not finite ({what})",
            f"{look}{fix} with --ckpt_path last",
        )

    def figures(self) -> dict[str, float]:
        """For the log: the norm before clipping, of the last step that was looked at, and the steps left out so far if
        there were any."""
        return {"grad_norm": self._norm} | ({"skipped_steps": float(self.skipped)} if self.skipped else {})


def _parameters(optimizer: torch.optim.Optimizer) -> list[torch.nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def replay_name(step: int, rank: int) -> str:
    return f"step-{step + 1}-rank-{rank}.replay"


def write_replay(path: Path, attempts: Sequence[Attempt], content: dict[str, Any]) -> None:
    """What `python cli.py replay` reads: a checkpoint's content, and the micro-batches of the broken step. It lies in a
    folder of the run, as checkpoints do, so that the run is found from the file."""
    on_cpu = [attempt.batch.to("cpu") for attempt in attempts]
    batches = [{field.name: getattr(batch, field.name) for field in fields(Batch)} for batch in on_cpu]
    write_checkpoint(content | {"batches": batches, "seeds": [attempt.seed for attempt in attempts]}, path)


def describe(attempts: Sequence[Attempt], rank: int) -> str | None:
    """Which micro-batches of this rank have a loss that is not finite, and their rows; None if none has."""
    bad = [attempt for attempt in attempts if not attempt.loss.isfinite()]
    if not bad:
        return None
    rows = [row_id for attempt in bad for row_id in attempt.batch.row_ids]
    named = ", ".join(rows[:NAMED]) + (f" and {len(rows) - NAMED} more" if len(rows) > NAMED else "")
    return f"rank {rank}: loss {float(bad[0].loss)} of rows {named}"
