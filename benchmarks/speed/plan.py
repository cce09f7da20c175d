"""The rows of each optimizer step, decided once, so that every side trains on the same rows in the same steps.

padded    `batch` rows in the order of the file, which is shuffled; the peers pad them
grouped   `batch` rows of similar length, as with transformers' group_by_length; the peers pad almost nothing
packed    `batch` packs of at most `length` tokens, packed by best fit; the peers take the rows one after another with
          restarting positions, as in TRL's padding-free batches
"""

from typing import Literal

import numpy as np

from datamodules.batches.packing import best_fit

Kind = Literal["padded", "grouped", "packed"]
KINDS: tuple[Kind, ...] = ("padded", "grouped", "packed")


def plan(lengths: np.ndarray, kind: Kind, batch: int, length: int, steps: int) -> list[list[int]]:
    """Return the rows of each step, none longer than `length` tokens. Rows are repeated if there are too few."""
    rows = np.flatnonzero(lengths <= length)
    if not len(rows):
        raise SystemExit(f"no row has {length} tokens or fewer")
    groups = _packs(rows, lengths, batch, length) if kind == "packed" else _batches(rows, lengths, kind, batch)
    return [groups[k % len(groups)] for k in range(steps)]


def _batches(rows: np.ndarray, lengths: np.ndarray, kind: Kind, batch: int) -> list[list[int]]:
    if kind == "grouped":
        rows = rows[np.argsort(lengths[rows], kind="stable")]
    whole = len(rows) // batch * batch
    batches = np.resize(rows, max(whole, batch)).reshape(-1, batch)
    if kind == "grouped":
        batches = np.random.default_rng(0).permutation(
            batches
        )  # otherwise the first steps would have the shortest rows
    found: list[list[int]] = batches.tolist()
    return found


def _packs(rows: np.ndarray, lengths: np.ndarray, batch: int, length: int) -> list[list[int]]:
    """Pack as this project does; then take `batch` packs per step, in random order, without an incomplete last step."""
    chosen, count = best_fit(lengths[rows], length, np.arange(len(rows)))
    packs = [rows[chosen == k].tolist() for k in range(count)]
    order = np.random.default_rng(0).permutation(len(packs)).tolist()
    order = (order * (batch // len(order) + 1))[: max(len(order) // batch, 1) * batch]
    return [[row for k in order[i : i + batch] for row in packs[k]] for i in range(0, len(order), batch)]
