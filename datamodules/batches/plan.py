"""The plan of an epoch: the examples of every micro-batch on every rank, complete before the epoch begins.

A plan is a pure function of (lengths, supervised tokens, step size, seed, epoch). This has three uses. The supervised
tokens of an optimizer step over all ranks are known in advance, so every token has the same weight without
communication. A resumed fit continues at an index of the plan. The number of optimizer steps is exact.

    none      The examples are shuffled, and each step takes the next batch_size x accumulate x world_size of them.
              Within a step they are sorted by length, so a micro-batch holds examples of similar length. The order
              within a step does not change its gradient.
    packed    All examples of the epoch are packed by best fit into packs of at most max_length tokens. The packs are
              assigned at random to a given number of steps with nearly equal supervised tokens. Each step's examples
              are then divided into micro-batches of nearly equal tokens, at most batch_size x max_length.

Micro-batches are numbered by step, then by their place in the step, then by rank:

    step 0: micro-batch 0 of rank 0, 1, …   micro-batch 1 of rank 0, 1, …     step 1: …
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from datamodules.batches.packing import balanced_bins, best_fit, low_drift_order

PackingMode = Literal["packed", "none"]


@dataclass(frozen=True)
class StepSize:
    """The size of every optimizer step of a fit, and its division into micro-batches."""

    batch_size: int  # examples of a micro-batch; with packing the packs that it has room for
    accumulate: int = 1  # micro-batches of a rank per optimizer step
    world_size: int = 1  # ranks
    packing: PackingMode = "none"
    pack_tokens: int | None = None  # tokens that a pack has room for; None without packing
    steps: int | None = None  # optimizer steps per epoch; None without packing

    @property
    def micro_batches(self) -> int:
        """Micro-batches of an optimizer step, over all ranks."""
        return self.accumulate * self.world_size

    @property
    def step_capacity(self) -> int:
        """Examples of a step; with packing the packs that it has room for."""
        return self.batch_size * self.micro_batches

    @property
    def rows_of_a_step(self) -> tuple[object, ...]:
        """The values that decide which examples share a step. Step sizes with equal values have the same steps, even if
        they divide a step into other micro-batches."""
        if self.packing == "packed":
            return self.packing, self.pack_tokens, self.steps
        return self.packing, self.step_capacity

    def described(self) -> str:
        devices = f"{self.world_size} device{'s' if self.world_size > 1 else ''}"
        if self.packing == "packed":
            packs = f"{self.batch_size} packs of {self.pack_tokens:,} tokens"
            return f"{packs} x {self.accumulate} accumulated x {devices}"
        return f"{self.batch_size} rows x {self.accumulate} accumulated x {devices}"


@dataclass(frozen=True)
class PlannedBatch:
    """One micro-batch of one rank. It may have no examples: in the last step of an epoch there may be fewer examples
    than micro-batches, and every rank takes part in every micro-batch."""

    indices: tuple[int, ...]  # of the examples in their split
    step_tokens: int  # supervised tokens of the whole optimizer step, over all micro-batches and ranks


@dataclass(frozen=True)
class EpochPlan:
    """`batches[i][rank]` is the i-th micro-batch of a rank. Every step has the same number of micro-batches."""

    batches: tuple[tuple[PlannedBatch, ...], ...]

    def __len__(self) -> int:
        return len(self.batches)


def steps_per_epoch(examples: int, size: StepSize) -> int:
    """The optimizer steps of an epoch, the same for every epoch. Without packing the last step may be smaller."""
    return -(-examples // size.step_capacity) if size.steps is None else size.steps


def plan_epoch(lengths: np.ndarray, supervised: np.ndarray, size: StepSize, seed: int, epoch: int) -> EpochPlan:
    """The micro-batches of one epoch: every example once, in an order that depends on (seed, epoch) alone.

    lengths, supervised: (N,) tokens of each example. Every step has exactly `accumulate` micro-batches on every rank.
    """
    examples, numbers = _assign(lengths, supervised, size, seed, epoch)
    return _build_plan(examples, numbers, supervised, steps_per_epoch(len(lengths), size), size)


def tokens_of_steps(lengths: np.ndarray, supervised: np.ndarray, size: StepSize, seed: int, epoch: int) -> np.ndarray:
    """The supervised tokens of each optimizer step of `plan_epoch`, (steps,), without making its batches."""
    examples, numbers = _assign(lengths, supervised, size, seed, epoch)
    return _tokens_of_steps(examples, numbers, supervised, steps_per_epoch(len(lengths), size), size)


# Examples in an order, (N,), and the number of the micro-batch that each of them belongs to, (N,)
Assignment = tuple[np.ndarray, np.ndarray]


def _assign(lengths: np.ndarray, supervised: np.ndarray, size: StepSize, seed: int, epoch: int) -> Assignment:
    rng = np.random.default_rng([seed, epoch])
    shuffled = rng.permutation(len(lengths))
    if size.packing == "packed":
        return _assign_packed(lengths, supervised, size, shuffled, rng)
    return _assign_unpacked(lengths, size, shuffled)


def _assign_unpacked(lengths: np.ndarray, size: StepSize, shuffled: np.ndarray) -> Assignment:
    steps = np.arange(len(shuffled)) // size.step_capacity
    examples = shuffled[np.lexsort((-lengths[shuffled], steps))]
    numbers = np.arange(len(shuffled)) // size.batch_size
    if rest := len(examples) % size.step_capacity:  # the last step: divide its examples evenly
        numbers[-rest:] = steps[-1] * size.micro_batches + _evenly(rest, size.micro_batches)
    return examples, numbers


def _assign_packed(
    lengths: np.ndarray, supervised: np.ndarray, size: StepSize, shuffled: np.ndarray, rng: np.random.Generator
) -> Assignment:
    assert size.pack_tokens is not None and size.steps is not None
    pack, packs = best_fit(lengths, size.pack_tokens, shuffled)
    step = _assign_to_steps(_sum_by(pack, supervised, packs), size.steps, rng)
    # Single examples balance better than whole packs. If a micro-batch of a step would become too long with them,
    # the packs of this step stay whole: batch_size packs always fit
    by_example = _assign_to_micro_batches(step[pack], lengths, size, size.steps)
    by_pack = _assign_to_micro_batches(step, _sum_by(pack, lengths, packs), size, size.steps)[pack]
    tokens = _sum_by(by_example, lengths, size.steps * size.micro_batches).reshape(size.steps, size.micro_batches)
    overfull = tokens.max(axis=1) > size.batch_size * size.pack_tokens
    numbers = np.where(overfull[step[pack]], by_pack, by_example)
    order = np.argsort(pack, kind="stable")
    return order, numbers[order]


def _assign_to_micro_batches(step: np.ndarray, tokens: np.ndarray, size: StepSize, steps: int) -> np.ndarray:
    """Return the micro-batch number of each item (an example or a pack), (K,).

    The micro-batches of a step differ by at most one item, and by at most the tokens of the step's largest item.
    step, tokens: (K,) the step of each item and its tokens.
    """
    order = np.lexsort((-tokens, step))  # by step; within a step the largest item first
    counts = np.bincount(step, minlength=steps)
    line, column = step[order], np.arange(len(step)) - np.repeat(np.cumsum(counts) - counts, counts)
    table = np.zeros((steps, int(counts.max())), np.int64)  # a line for each step, 0 after its last item
    table[line, column] = tokens[order]
    numbers = np.empty(len(step), np.int64)
    numbers[order] = line * size.micro_batches + balanced_bins(table, size.micro_batches)[line, column]
    return numbers


def _assign_to_steps(tokens: np.ndarray, steps: int, rng: np.random.Generator) -> np.ndarray:
    """Return the step of each pack, (P,), at random.

    Steps differ by at most one pack, and by at most the supervised tokens of the largest pack. The running sum of the
    tokens does not drift from that of the mean. tokens: (P,) supervised tokens of each pack.
    """
    drawn = rng.permutation(len(tokens))
    step = np.empty_like(drawn)
    step[drawn] = balanced_bins(tokens[drawn][None], steps)[0]
    renumbered = np.empty(steps, np.int64)
    renumbered[low_drift_order(_sum_by(step, tokens, steps), rng)] = np.arange(steps)
    return renumbered[step]


def _build_plan(
    examples: np.ndarray, numbers: np.ndarray, supervised: np.ndarray, steps: int, size: StepSize
) -> EpochPlan:
    tokens = _tokens_of_steps(examples, numbers, supervised, steps, size).tolist()
    ends = np.cumsum(np.bincount(numbers, minlength=steps * size.micro_batches)).tolist()
    ordered = examples[np.argsort(numbers, kind="stable")].tolist()
    batches = [
        PlannedBatch(tuple(ordered[start:end]), tokens[number // size.micro_batches])
        for number, (start, end) in enumerate(zip([0, *ends], ends, strict=False))
    ]
    return EpochPlan(tuple(tuple(batches[i : i + size.world_size]) for i in range(0, len(batches), size.world_size)))


def _tokens_of_steps(
    examples: np.ndarray, numbers: np.ndarray, supervised: np.ndarray, steps: int, size: StepSize
) -> np.ndarray:
    return _sum_by(numbers // size.micro_batches, supervised[examples], steps)


def _evenly(count: int, parts: int) -> np.ndarray:
    """The part of each of `count` items in a line, (count,). The parts differ by at most one item."""
    each, more = divmod(count, parts)
    return np.repeat(np.arange(parts), each + (np.arange(parts) < more))


def _sum_by(keys: np.ndarray, values: np.ndarray, count: int) -> np.ndarray:
    """The sum of the values of each key from 0 to count - 1, (count,) int64."""
    return np.bincount(keys, weights=values, minlength=count).astype(np.int64)  # exact below 2 ** 53


def plan_evaluation(examples: int, batch_size: int, rank: int, world_size: int) -> list[tuple[int, ...]]:
    """The indices of each batch of this rank: every example once over all ranks, and equally many batches on all ranks.

    Example i goes to rank i % world_size, so the ranks finish together. The last batch of a rank may be empty.
    """
    per_rank = -(-examples // world_size)
    mine = range(rank, examples, world_size)
    return [tuple(mine[start : start + batch_size]) for start in range(0, per_rank, batch_size)]
