"""Packing of examples, and balanced assignment to steps and micro-batches: the arithmetic of a plan.

No example is cut, repeated or dropped. Both problems are NP-hard; benchmarks/README.md, "Packing", shows how close
these approximations come to the optimum on real rows.
"""

import numpy as np


def best_fit(lengths: np.ndarray, capacity: int, order: np.ndarray) -> tuple[np.ndarray, int]:
    """Return the pack of each example, (N,) int64, and the number of packs, by best fit decreasing.

    Examples are placed from the longest to the shortest, each into the fullest pack that still has room. Examples of
    equal length are interchangeable, so they are placed together, in the sequence that `order` gives. The loop
    therefore runs over distinct lengths, not over examples, and the number of packs depends on the lengths alone.

    lengths: (N,) tokens, from 1 to `capacity`. order: (N,) a permutation of the examples.
    """
    longest_first = order[np.argsort(-lengths[order], kind="stable")]
    values, counts = np.unique(lengths, return_counts=True)
    open_packs: list[list[int]] = [[] for _ in range(capacity + 1)]  # open_packs[r]: packs with room for r tokens
    rooms = 0  # bit r is set if open_packs[r] is not empty
    chosen: list[int] = []  # the pack of each example of longest_first
    packs = 0
    for length, left in zip(values[::-1].tolist(), counts[::-1].tolist(), strict=True):
        while left:
            fitting = rooms >> length
            if fitting:
                room = length + (fitting & -fitting).bit_length() - 1  # the lowest set bit is the least room
            else:
                room, new = capacity, -(-left // (capacity // length))
                open_packs[room] = list(range(packs, packs + new))
                packs += new
            # The fullest pack stays the fullest one after each example, so it takes all of this length that fit
            candidates, each = open_packs[room], min(room // length, left)
            number = min(len(candidates), left // each)
            taken = candidates[-number:]
            del candidates[-number:]
            chosen += taken * each
            left -= number * each
            open_packs[room - each * length] += taken
            rooms |= 1 << (room - each * length)
            if candidates:
                rooms |= 1 << room
            else:
                rooms &= ~(1 << room)
    pack = np.empty(len(lengths), np.int64)
    pack[longest_first] = chosen
    return pack, packs


def balanced_bins(values: np.ndarray, bins: int) -> np.ndarray:
    """Return the bin of each value, (G, K) int64, for each of G independent groups. values: (G, K), 0 or more.

    Within a group the bins differ by at most one in their number of values, and by at most the largest value in their
    sums. Values are assigned in rounds of `bins` values. In a round the largest value goes to the bin with the smallest
    sum, the second largest to the bin with the second smallest sum, and so on.
    """
    chosen = np.empty(values.shape, np.int64)
    sums = np.zeros((len(values), bins), values.dtype)
    for start in range(0, values.shape[1], bins):
        round_values = values[:, start : start + bins]
        largest = np.argsort(-round_values, axis=1, kind="stable")
        emptiest = np.argsort(sums, axis=1, kind="stable")[:, : round_values.shape[1]]
        np.put_along_axis(chosen[:, start : start + bins], largest, emptiest, 1)
        new_sums = np.take_along_axis(sums, emptiest, 1) + np.take_along_axis(round_values, largest, 1)
        np.put_along_axis(sums, emptiest, new_sums, 1)
    return chosen


def low_drift_order(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a random order of (N,) integers. In this order the sum of the first k values differs from k times the mean
    by at most the largest deviation of one value from the mean."""
    deviations = values * len(values) - values.sum()  # times N, so that they stay integers
    drawn = rng.permutation(len(values))
    above, below = (drawn[mask].tolist() for mask in (deviations[drawn] > 0, deviations[drawn] <= 0))
    deviation_of = deviations.tolist()
    order, drift = [], 0
    while above or below:
        following = (above if drift <= 0 and above else below).pop()
        drift += deviation_of[following]
        order.append(following)
    return np.array(order, np.int64)
