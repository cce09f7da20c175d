"""The step size of a fit: from data.packing and data.tokens_per_step to StepSize, with its description for the log."""

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from datamodules.batches.packing import best_fit
from datamodules.batches.plan import PackingMode, StepSize, steps_per_epoch, tokens_of_steps
from errors import UserError

Packing = Literal["auto", "packed", "none"]  # data.packing


def resolve_auto(device: str) -> tuple[PackingMode, str]:
    """The packing mode of `data.packing auto` on a device of this type, and the reason."""
    if device == "cuda":
        return "packed", "a GPU is fastest with full batches"
    return "none", f"on a {device.upper()} full batches are no faster"


def check_tokens_per_step(packing: Packing, tokens_per_step: int | None) -> None:
    """Raise UserError for a number without packing."""
    if tokens_per_step is not None and packing == "none":
        raise _without_packing(tokens_per_step, "data.packing is none")


@dataclass(frozen=True)
class EpochLayout:
    """The step size of a fit, and the figures of its epochs for the user."""

    step_size: StepSize
    reason: str  # of data.packing auto; empty for another setting
    examples: int
    packs: int  # 0 without packing
    fill: float  # ratio of the packs' room that holds tokens; 0 without packing
    steps: int  # optimizer steps per epoch
    steps_unpacked: int  # the same without packing
    tokens_per_step: tuple[int, int, int]  # supervised, in the first epoch: least, mean, most

    def line(self) -> str:
        """One line for the log."""
        size, reason = self.step_size, f" (auto: {self.reason})" if self.reason else ""
        least, mean, most = self.tokens_per_step
        steps = f"{self.steps:,} optimizer steps per epoch, {mean:,} supervised tokens each ({least:,} to {most:,})"
        if not self.packs:
            return f"data: not packed{reason}; {steps}"
        line = f"data: packed{reason}, {self.examples:,} rows in {self.packs:,} packs of {size.pack_tokens:,} tokens, "
        line += f"{100 * self.fill:.1f}% full; {steps}; {self.steps_unpacked:,} steps without packing"
        packs_per_step = -(-self.packs // self.steps)
        enough = -(-packs_per_step // (size.batch_size * size.world_size))
        if enough < size.accumulate:
            line += f"; trainer.accumulate_grad_batches {enough} with data.tokens_per_step {mean} is enough for them"
        return line

    def figures(self) -> dict[str, Any]:
        """The same figures for summary.json."""
        least, mean, most = self.tokens_per_step
        packed = {"packs": self.packs, "packing_efficiency": self.fill} if self.packs else {}
        return {
            "packing": self.step_size.packing,
            "steps_per_epoch": self.steps,
            "steps_per_epoch_unpacked": self.steps_unpacked,
            "tokens_per_step": {"least": least, "mean": mean, "most": most},
            **packed,
        }


def plan_step_size(
    lengths: np.ndarray,
    supervised: np.ndarray,
    unpacked: StepSize,
    packing: Packing,
    max_length: int,
    tokens_per_step: int | None,
    device: str,
    seed: int,
) -> EpochLayout:
    """The layout of a fit's epochs. Raise UserError if packs and an optimizer step do not fit each other.

    lengths, supervised: (N,) tokens of each example. unpacked: the step size without packing. device: its type.
    """
    mode, reason = resolve_auto(device) if packing == "auto" else (packing, "")
    examples, total = len(lengths), int(supervised.sum())
    packs, fill, size = 0, 0.0, replace(unpacked, packing=mode)
    if mode == "packed":
        packs = best_fit(lengths, max_length, np.arange(examples))[1]
        steps = _packed_steps(packs, examples, total, unpacked, tokens_per_step)
        if steps > packs and packing == "auto" and tokens_per_step is None:
            packs, size, reason = 0, unpacked, "an optimizer step is less than one pack"
        else:
            _check_packs_per_step(packs, steps, unpacked, max_length, tokens_per_step, total)
            fill = int(lengths.sum()) / (packs * max_length)
            size = replace(size, pack_tokens=max_length, steps=steps)
    elif tokens_per_step is not None:
        raise _without_packing(tokens_per_step, f"data.packing auto does not pack: {reason}")
    steps = steps_per_epoch(examples, size)
    tokens = tokens_of_steps(lengths, supervised, size, seed, 0)
    spread = int(tokens.min()), total // steps, int(tokens.max())
    return EpochLayout(size, reason, examples, packs, fill, steps, steps_per_epoch(examples, unpacked), spread)


def _without_packing(tokens_per_step: int, why: str) -> UserError:
    fix = "set data.packing packed, or data.tokens_per_step null"
    return UserError("data.tokens_per_step", tokens_per_step, f"applies to packing only, and {why}", fix)


def _packed_steps(packs: int, examples: int, supervised: int, unpacked: StepSize, tokens_per_step: int | None) -> int:
    """The optimizer steps per epoch with packing, for about tokens_per_step supervised tokens each. By default that is
    the mean of the unpacked steps, or less if the micro-batches could not hold their packs."""
    if tokens_per_step is not None:
        return max(1, round(supervised / tokens_per_step))
    return max(1, round(examples / unpacked.step_capacity), -(-packs // unpacked.step_capacity))


def _check_packs_per_step(
    packs: int, steps: int, unpacked: StepSize, max_length: int, tokens_per_step: int | None, supervised: int
) -> None:
    """Raise UserError if a step is less than one pack, or more packs than its micro-batches hold."""
    if steps > packs:
        problem = f"is less than one pack of {max_length:,} tokens, which has about {supervised // packs:,} supervised"
        if tokens_per_step is not None:
            fix = f"give {-(-supervised // packs)} or more, or set data.packing none"
            raise UserError("data.tokens_per_step", tokens_per_step, problem, fix)
        fix = "set trainer.accumulate_grad_batches or data.batch_size higher, or data.packing none"
        raise UserError("data.packing", "packed", f"an optimizer step of {unpacked.described()} {problem}", fix)
    most = -(-packs // steps)
    if most > unpacked.step_capacity:
        problem = f"needs {most:,} packs per step, and {unpacked.described()} hold {unpacked.step_capacity:,}"
        per_micro_batch = unpacked.batch_size * unpacked.world_size
        possible = supervised // -(-packs // unpacked.step_capacity)
        fix = f"set trainer.accumulate_grad_batches {-(-most // per_micro_batch)}, or data.batch_size "
        fix += f"{-(-most // unpacked.micro_batches)}, or data.tokens_per_step {possible}"
        raise UserError("data.tokens_per_step", tokens_per_step, problem, fix)
