"""Rows into packs of a fixed size, and packs into steps and shares that hold as much: the arithmetic behind a plan.

All of it in whole rows: nothing is cut, nothing is left over. Both problems are hard to solve exactly; how near these
come on real rows is in benchmarks/README.md.
"""

import numpy as np


def best_fit(lengths: np.ndarray, capacity: int, order: np.ndarray) -> tuple[np.ndarray, int]:
    """The pack of each row, (N,) int64, and how many packs there are: best fit decreasing over all rows.

    The longest row first, each into the fullest pack that takes it. Rows of equal length are interchangeable, so they
    are placed together, those first that come first in `order`: a loop over lengths, not over rows, and the number of
    packs follows from the lengths alone.

    lengths: (N,) tokens, from 1 to `capacity`. order: (N,) a permutation of the rows.
    """
    longest_first = order[np.argsort(-lengths[order], kind="stable")]
    values, counts = np.unique(lengths, return_counts=True)
    open_packs: list[list[int]] = [[] for _ in range(capacity + 1)]  # by the tokens that they still take
    rooms = 0  # bit r is set where open_packs[r] is not empty
    chosen: list[int] = []  # the packs, for longest_first
    packs = 0
    for length, left in zip(values[::-1].tolist(), counts[::-1].tolist(), strict=True):
        while left:
            fitting = rooms >> length
            if fitting:
                room = length + (fitting & -fitting).bit_length() - 1
            else:
                room, new = capacity, -(-left // (capacity // length))
                open_packs[room] = list(range(packs, packs + new))
                packs += new
            # The fullest pack that takes one row is the fullest for the next as well, until it takes none
            here, each = open_packs[room], min(room // length, left)
            some = min(len(here), left // each)
            taken = here[-some:]
            del here[-some:]
            chosen += taken * each
            left -= some * each
            open_packs[room - each * length] += taken
            rooms |= 1 << (room - each * length)
            if here:
                rooms |= 1 << room
            else:
                rooms &= ~(1 << room)
    pack = np.empty(len(lengths), np.int64)
    pack[longest_first] = chosen
    return pack, packs


def deal(values: np.ndarray, bins: int) -> np.ndarray:
    """The bin of each value, (G, K) int64, in each of G groups: bins that hold as many values, up to one, and as much.

    The values go out in rounds of one for each bin, the largest of a round to the bin that holds least. So the sums of
    two bins never differ by more than one value does from another, nor, at the end, by more than the largest value.

    values: (G, K), 0 or more, in the order in which they are dealt.
    """
    chosen = np.empty(values.shape, np.int64)
    sums = np.zeros((len(values), bins), values.dtype)
    for start in range(0, values.shape[1], bins):
        dealt = values[:, start : start + bins]
        largest = np.argsort(-dealt, axis=1, kind="stable")
        emptiest = np.argsort(sums, axis=1, kind="stable")[:, : dealt.shape[1]]
        np.put_along_axis(chosen[:, start : start + bins], largest, emptiest, 1)
        grown = np.take_along_axis(sums, emptiest, 1) + np.take_along_axis(dealt, largest, 1)
        np.put_along_axis(sums, emptiest, grown, 1)
    return chosen


def without_drift(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """An order of the values, drawn at random, in which their running sum never strays further from that of their mean
    than the one value does that strays most. values: (N,) integers."""
    strays = values * len(values) - values.sum()
    drawn = rng.permutation(len(values))
    above, below = (drawn[there].tolist() for there in (strays[drawn] > 0, strays[drawn] <= 0))
    by = strays.tolist()
    order, sum_of_strays = [], 0
    while above or below:
        following = (above if sum_of_strays <= 0 and above else below).pop()
        sum_of_strays += by[following]
        order.append(following)
    return np.array(order, np.int64)
