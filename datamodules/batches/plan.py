"""Which rows make up every batch of an epoch, on every rank, known before the epoch begins.

A plan is a pure function of (lengths, supervised tokens, sizes, seed, epoch). So the supervised tokens of an optimizer
step over all ranks are known up front, which weighs every token equally without communication; a resume is an index
into the plan; and the number of steps is a fact, not an estimate.

    none      epoch, shuffled: r0 r1 … r15 | r16 …   a step is batch_size x accumulate x world_size rows
              within a step longest first, so that a batch holds rows of like length; the step's gradient is the same
    grouped   epoch, by length: rows of like length all over the epoch share a batch, as many as above; batches are
              drawn into steps, long ones with short ones
    packed    epoch, best fit: whole rows in packs of max_length tokens; packs are drawn into a number of steps that is
              given, all with the same supervised tokens up to a pack; a batch holds at most what batch_size packs do

    dealt     micro-batch 0: rank 0, rank 1   micro-batch 1: rank 0, rank 1   …
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from datamodules.batches.packing import best_fit, deal, without_drift

Shape = Literal["packed", "grouped", "none"]


@dataclass(frozen=True)
class StepSize:
    """How every epoch is cut into steps, and a step into batches.

    Without packing a step is batch_size x accumulate x world_size rows, and with it so many packs at most.
    """

    batch_size: int
    accumulate: int = 1
    world_size: int = 1
    packing: Shape = "none"
    pack_tokens: int | None = None  # what a pack holds; where rows are packed
    steps: int | None = None  # of an epoch; where rows are packed

    @property
    def rows_per_step(self) -> int:
        return self.batch_size * self.shares

    @property
    def shares(self) -> int:
        """Batches of a step, on all ranks."""
        return self.accumulate * self.world_size

    @property
    def rows_of_a_step(self) -> tuple[object, ...]:
        """What decides, for given rows, which of them share a step. How a step is shared out does not, but where like
        lengths are grouped before."""
        if self.packing == "packed":
            return self.packing, self.pack_tokens, self.steps
        if self.packing == "grouped":
            return self.packing, self.batch_size * self.world_size, self.accumulate
        return self.packing, self.rows_per_step

    def described(self) -> str:
        devices = f"{self.world_size} device{'s' if self.world_size > 1 else ''}"
        rows = f"{self.batch_size} rows x {self.accumulate} accumulated x {devices}"
        if self.packing == "packed":
            return f"{rows}, packed into rows of {self.pack_tokens:,} tokens"
        return f"{rows}, grouped by length" if self.packing == "grouped" else rows


@dataclass(frozen=True)
class PlannedBatch:
    """One batch of one rank. `rows` may be empty: every rank takes part in every batch, however few rows are left."""

    rows: tuple[int, ...]
    step_tokens: int  # supervised tokens of the whole optimizer step, over all its batches and ranks


@dataclass(frozen=True)
class EpochPlan:
    """`batches[i][rank]` is the i-th batch of a rank. A step may hold fewer rows than others, never fewer batches."""

    batches: tuple[tuple[PlannedBatch, ...], ...]

    def __len__(self) -> int:
        return len(self.batches)


def steps_per_epoch(rows: int, sizes: StepSize) -> int:
    """Optimizer steps that `rows` rows make, the same in every epoch; without packing the last may be smaller."""
    return -(-rows // sizes.rows_per_step) if sizes.steps is None else sizes.steps


def plan_epoch(lengths: np.ndarray, supervised: np.ndarray, sizes: StepSize, seed: int, epoch: int) -> EpochPlan:
    """The batches of one epoch: every row once, in an order that depends on (seed, epoch) alone.

    lengths, supervised: (N,) tokens of each row. Each step has exactly `accumulate` batches on every rank.
    """
    rng = np.random.default_rng([seed, epoch])
    shuffled = rng.permutation(len(lengths))
    if sizes.packing == "packed":
        rows, slots = _packed(lengths, supervised, sizes, shuffled, rng)
    elif sizes.packing == "grouped":
        rows, slots = _grouped(lengths, supervised, sizes, shuffled, rng)
    else:
        rows, slots = _plain(lengths, sizes, shuffled)
    return _planned(rows, slots, supervised, steps_per_epoch(len(lengths), sizes), sizes)


# (rows, slots): the rows in an order, and for each the batch that it is in, counted over steps, micro-batches and ranks
Placed = tuple[np.ndarray, np.ndarray]


def _plain(lengths: np.ndarray, sizes: StepSize, shuffled: np.ndarray) -> Placed:
    steps = np.arange(len(shuffled)) // sizes.rows_per_step
    rows = shuffled[np.lexsort((-lengths[shuffled], steps))]
    slots = np.arange(len(shuffled)) // sizes.batch_size
    if short := len(rows) % sizes.rows_per_step:  # the last step, spread evenly
        slots[-short:] = steps[-1] * sizes.shares + _even(short, sizes.shares)
    return rows, slots


def _grouped(
    lengths: np.ndarray, supervised: np.ndarray, sizes: StepSize, shuffled: np.ndarray, rng: np.random.Generator
) -> Placed:
    """Groups of batch_size x world_size rows are one micro-batch, whose ranks hold as much as each other."""
    rows = shuffled[np.argsort(-lengths[shuffled], kind="stable")]
    steps = steps_per_epoch(len(rows), sizes)
    group = _even(len(rows), steps * sizes.accumulate)
    at = np.arange(len(rows)) - np.searchsorted(group, group)  # in its group
    micro_batches = steps * sizes.accumulate
    step, place = _into_steps(_sums(group, supervised[rows], micro_batches), steps, rng)
    return rows, (step[group] * sizes.accumulate + place[group]) * sizes.world_size + at % sizes.world_size


def _packed(
    lengths: np.ndarray, supervised: np.ndarray, sizes: StepSize, shuffled: np.ndarray, rng: np.random.Generator
) -> Placed:
    assert sizes.pack_tokens is not None and sizes.steps is not None
    pack, packs = best_fit(lengths, sizes.pack_tokens, shuffled)
    step, _ = _into_steps(_sums(pack, supervised, packs), sizes.steps, rng)
    # Row by row the batches of a step come out evenest; where one would then hold too much, its packs stay together
    by_row = _share_out(step[pack], lengths, sizes, sizes.steps)
    by_pack = _share_out(step, _sums(pack, lengths, packs), sizes, sizes.steps)[pack]
    held = _sums(by_row, lengths, sizes.steps * sizes.shares).reshape(sizes.steps, sizes.shares)
    too_much = held.max(axis=1) > sizes.batch_size * sizes.pack_tokens
    slots = np.where(too_much[step[pack]], by_pack, by_row)
    together = np.argsort(pack, kind="stable")
    return together, slots[together]


def _share_out(step: np.ndarray, tokens: np.ndarray, sizes: StepSize, steps: int) -> np.ndarray:
    """The batch of each of the rows, or packs, which are in these steps and of so many tokens: in a step they are of as
    many, up to one, and of as many tokens, up to the largest of them."""
    fullest = np.lexsort((-tokens, step))
    counts = np.bincount(step, minlength=steps)
    line, place = step[fullest], np.arange(len(step)) - np.repeat(np.cumsum(counts) - counts, counts)
    table = np.zeros((steps, int(counts.max())), np.int64)  # what a step has less than others is 0 at its end
    table[line, place] = tokens[fullest]
    slots = np.empty(len(step), np.int64)
    slots[fullest] = line * sizes.shares + deal(table, sizes.shares)[line, place]
    return slots


def _into_steps(tokens: np.ndarray, steps: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Of each of the batches or packs, which have so many supervised tokens: its step, and its place there.

    They are drawn at random into steps of as many, up to one, and of as many tokens, up to the largest of them.
    """
    drawn = rng.permutation(len(tokens))
    step, place = np.empty_like(drawn), np.empty_like(drawn)
    step[drawn] = deal(tokens[drawn][None], steps)[0]
    place[drawn] = np.arange(len(drawn)) // steps  # one to each step in each round
    new = np.empty(steps, np.int64)
    new[without_drift(_sums(step, tokens, steps), rng)] = np.arange(steps)
    return new[step], place


def _planned(rows: np.ndarray, slots: np.ndarray, supervised: np.ndarray, steps: int, sizes: StepSize) -> EpochPlan:
    tokens = _sums(slots // sizes.shares, supervised[rows], steps).tolist()
    ends = np.cumsum(np.bincount(slots, minlength=steps * sizes.shares)).tolist()
    ordered = rows[np.argsort(slots, kind="stable")].tolist()
    shares = [
        PlannedBatch(tuple(ordered[start:end]), tokens[slot // sizes.shares])
        for slot, (start, end) in enumerate(zip([0, *ends], ends, strict=False))
    ]
    return EpochPlan(tuple(tuple(shares[i : i + sizes.world_size]) for i in range(0, len(shares), sizes.world_size)))


def _even(count: int, parts: int) -> np.ndarray:
    """(count,): the part of each of `count` things in a line that is cut into `parts`, of as many up to one."""
    each, more = divmod(count, parts)
    return np.repeat(np.arange(parts), each + (np.arange(parts) < more))


def _sums(of: np.ndarray, values: np.ndarray, count: int) -> np.ndarray:
    """(count,) int64: the sum of the values of each."""
    return np.bincount(of, weights=values, minlength=count).astype(np.int64)  # exact below 2 ** 53


def plan_evaluation(rows: int, batch_size: int, rank: int, world_size: int) -> list[tuple[int, ...]]:
    """This rank's batches for an evaluation: every row once over all ranks, as many batches on each rank.

    Row i goes to rank i % world_size, so that ranks finish together; a rank's last batch may be empty.
    """
    per_rank = -(-rows // world_size)
    mine = range(rank, rows, world_size)
    return [tuple(mine[start : start + batch_size]) for start in range(0, per_rank, batch_size)]
