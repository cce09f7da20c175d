"""How the epochs of a fit are cut: from `data.packing` and `data.tokens_per_step` to StepSize, and what is said of it."""

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from datamodules.batches.packing import best_fit
from datamodules.batches.plan import Shape, StepSize, plan_epoch, steps_per_epoch
from errors import UserError

Packing = Literal["auto", "packed", "grouped", "none"]


def choose(device: str) -> tuple[Shape, str]:
    """What `data.packing auto` is on a device of this type, and why."""
    if device == "cuda":
        return "packed", "a GPU is fastest with full batches"
    return "none", f"on a {device.upper()} full batches are no faster"


def check_tokens_per_step(packing: Packing, tokens_per_step: int | None) -> None:
    """Raises UserError for a number that cannot be, or that nothing would go by."""
    if tokens_per_step is None:
        return
    if tokens_per_step < 1:
        raise UserError("data.tokens_per_step", tokens_per_step, "is below 1", "give 1 or more, or null")
    if packing in ("grouped", "none"):
        problem, fix = f"is for rows that are packed, and data.packing is {packing}", "set data.packing packed, or null"
        raise UserError("data.tokens_per_step", tokens_per_step, problem, fix)


@dataclass(frozen=True)
class Epochs:
    """How every epoch of a fit is cut, with what a user should know of it."""

    sizes: StepSize
    why: str  # of data.packing auto; else empty
    rows: int
    packs: int  # 0 where rows are not packed, as is the next
    filled: float  # share of the packs' room that holds tokens
    steps: int
    steps_unpacked: int
    tokens: tuple[int, int, int]  # supervised tokens of an optimizer step of the first epoch: fewest, mean, most

    def line(self) -> str:
        sizes, why = self.sizes, f" (auto: {self.why})" if self.why else ""
        least, mean, most = (f"{tokens:,}" for tokens in self.tokens)
        steps = f"{self.steps:,} optimizer steps an epoch of {mean} supervised tokens ({least} to {most})"
        if not self.packs:
            return f"data: {'grouped by length' if sizes.packing == 'grouped' else 'not packed'}{why}; {steps}"
        line = f"data: packed{why}, {self.rows:,} rows in {self.packs:,} of {sizes.pack_tokens:,} tokens, "
        line += f"{100 * self.filled:.1f}% full; {steps}, {self.steps_unpacked:,} steps without packing"
        needed = -(-self.packs // self.steps)
        needed = -(-needed // (sizes.batch_size * sizes.world_size))
        if needed < sizes.accumulate:
            line += f"; trainer.accumulate_grad_batches {needed} with data.tokens_per_step {self.tokens[1]} would hold "
            line += "them, too"
        return line

    def figures(self) -> dict[str, Any]:
        """For the run's summary."""
        least, mean, most = self.tokens
        packed = {"packed_rows": self.packs, "packing_efficiency": self.filled} if self.packs else {}
        return {
            "packing": self.sizes.packing,
            "steps_per_epoch": self.steps,
            "steps_per_epoch_unpacked": self.steps_unpacked,
            "tokens_per_step": {"least": least, "mean": mean, "most": most},
            **packed,
        }


def cut(
    lengths: np.ndarray,
    supervised: np.ndarray,
    plain: StepSize,
    packing: Packing,
    max_length: int,
    tokens_per_step: int | None,
    device: str,
    seed: int,
) -> Epochs:
    """The epochs of a fit on these rows; `plain` are the sizes without packing, `device` is the type of it.

    Raises UserError where packed rows and an optimizer step do not go together.
    """
    chosen, why = choose(device) if packing == "auto" else (packing, "")
    rows, total = len(lengths), int(supervised.sum())
    packs, filled, sizes = 0, 0.0, replace(plain, packing=chosen)
    if chosen == "packed":
        packs = best_fit(lengths, max_length, np.arange(rows))[1]
        steps = _steps(packs, rows, total, plain, tokens_per_step)
        if steps > packs and packing == "auto" and tokens_per_step is None:
            packs, sizes, why = 0, plain, "an optimizer step is less than one packed row"
        else:
            _check(packs, steps, plain, max_length, tokens_per_step, total)
            filled = int(lengths.sum()) / (packs * max_length)
            sizes = replace(sizes, pack_tokens=max_length, steps=steps)
    elif tokens_per_step is not None:
        fix = "set data.packing packed, or data.tokens_per_step null"
        raise UserError("data.tokens_per_step", tokens_per_step, f"is for rows that are packed, and {why}", fix)
    steps = steps_per_epoch(rows, sizes)
    tokens = [batch[0].step_tokens for batch in plan_epoch(lengths, supervised, sizes, seed, 0).batches]
    spread = min(tokens), total // steps, max(tokens)
    return Epochs(sizes, why, rows, packs, filled, steps, steps_per_epoch(rows, plain), spread)


def _steps(packs: int, rows: int, supervised: int, plain: StepSize, tokens_per_step: int | None) -> int:
    """As many as keep the supervised tokens of a step at what is asked for, or at the mean of the unpacked steps; there
    more where the batches could not hold them."""
    if tokens_per_step is not None:
        return max(1, round(supervised / tokens_per_step))
    return max(1, round(rows / plain.rows_per_step), -(-packs // plain.rows_per_step))


def _check(
    packs: int, steps: int, plain: StepSize, max_length: int, tokens_per_step: int | None, supervised: int
) -> None:
    """Raises UserError where a step is less than one pack, or more of them than its batches take."""
    each = plain.batch_size * plain.world_size
    if steps > packs:
        has = f"about {supervised // packs:,} supervised ones"
        problem = f"is less than one packed row of {max_length:,} tokens has, {has}"
        if tokens_per_step is not None:
            fix = f"give {-(-supervised // packs)} or more, or set data.packing none"
            raise UserError("data.tokens_per_step", tokens_per_step, problem, fix)
        fix = "set trainer.accumulate_grad_batches or data.batch_size higher, or data.packing none"
        raise UserError("data.packing", "packed", f"an optimizer step of {plain.described()} {problem}", fix)
    most = -(-packs // steps)
    if most > plain.rows_per_step:
        problem = f"takes {most:,} packed rows a step, and {plain.described()} hold {plain.rows_per_step:,}"
        fix = f"set trainer.accumulate_grad_batches {-(-most // each)}, or data.batch_size "
        fix += f"{-(-most // plain.shares)}, or data.tokens_per_step {supervised // -(-packs // plain.rows_per_step)}"
        raise UserError("data.tokens_per_step", tokens_per_step, problem, fix)
