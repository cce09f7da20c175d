"""Which rows make up every batch of an epoch, on every rank, known before the epoch begins.

A plan is a pure function of (lengths, supervised tokens, sizes, seed, epoch). So the supervised tokens of an optimizer
step over all ranks are known up front, which weighs every token equally without communication; a resume is an index
into the plan; and the number of steps is a fact, not an estimate.

    epoch, shuffled   r0 r1 r2 … r15 | r16 …            one optimizer step = batch_size x accumulate x world_size rows
    within a step     sorted by length, so that a batch needs little padding; the step's gradient is the same
    dealt             micro-batch 0: rank 0, rank 1   micro-batch 1: rank 0, rank 1   …
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Sizes:
    """Rows per optimizer step: batch_size x accumulate x world_size."""

    batch_size: int
    accumulate: int = 1
    world_size: int = 1

    @property
    def rows_per_step(self) -> int:
        return self.batch_size * self.accumulate * self.world_size

    def described(self) -> str:
        devices = f"{self.world_size} device{'s' if self.world_size > 1 else ''}"
        return f"{self.batch_size} rows x {self.accumulate} accumulated x {devices}"


@dataclass(frozen=True)
class PlannedBatch:
    """One batch of one rank. `rows` may be empty: every rank takes part in every batch, however few rows are left."""

    rows: tuple[int, ...]
    step_tokens: int  # supervised tokens of the whole optimizer step, over all its batches and ranks


@dataclass(frozen=True)
class EpochPlan:
    """`batches[i][rank]` is the i-th batch of a rank. The last step may hold fewer rows, never fewer batches."""

    batches: tuple[tuple[PlannedBatch, ...], ...]

    def __len__(self) -> int:
        return len(self.batches)


def steps_per_epoch(rows: int, sizes: Sizes) -> int:
    """Optimizer steps that `rows` rows make; the last may be smaller."""
    return -(-rows // sizes.rows_per_step)


def plan_epoch(lengths: np.ndarray, supervised: np.ndarray, sizes: Sizes, seed: int, epoch: int) -> EpochPlan:
    """The batches of one epoch: every row once, in an order that depends on (seed, epoch) alone.

    lengths, supervised: (N,) tokens of each row. Each step has exactly `accumulate` batches on every rank.
    """
    order = np.random.default_rng([seed, epoch]).permutation(len(lengths))
    batches: list[tuple[PlannedBatch, ...]] = []
    for start in range(0, len(order), sizes.rows_per_step):
        step = order[start : start + sizes.rows_per_step]
        step = step[np.argsort(-lengths[step], kind="stable")]
        tokens = int(supervised[step].sum())
        # array_split spreads a short last step evenly; a full one gives every share batch_size rows
        shares = np.array_split(step, sizes.accumulate * sizes.world_size)
        planned = [PlannedBatch(tuple(share.tolist()), tokens) for share in shares]
        batches += [tuple(planned[i : i + sizes.world_size]) for i in range(0, len(planned), sizes.world_size)]
    return EpochPlan(tuple(batches))


def plan_evaluation(rows: int, batch_size: int, rank: int, world_size: int) -> list[tuple[int, ...]]:
    """This rank's batches for an evaluation: every row once over all ranks, as many batches on each rank.

    Row i goes to rank i % world_size, so that ranks finish together; a rank's last batch may be empty.
    """
    per_rank = -(-rows // world_size)
    mine = range(rank, rows, world_size)
    return [tuple(mine[start : start + batch_size]) for start in range(0, per_rank, batch_size)]
