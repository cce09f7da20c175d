"""Text that repeats itself without end, as a model that is caught in a loop writes it.

A loop gives the same bytes again and again, exactly. A long list of numbered moves, a table or a proof by cases is
regular too, but its lines differ from each other. So a window is a repetition if nearly each of its bytes equals the
byte one period before, for one period.
"""

import numpy as np

# All three in bytes of UTF-8
WINDOW = 8_192
LONGEST_PERIOD = 1_024
# Differing bytes that a window may have: a slip of a word in a loop. R1's loop has 0, its 265 other answers of this
# length have 6,298 or more. The 4,095 moves of a Tower of Hanoi as "A->C" have 28, its 511 moves as "Move disk 1
# from A to C" have 93, with numbers 618
SLIPS = 16
_PROBE = 24  # bytes that are searched for, to find a period
_PROBES = (0, WINDOW // 4, WINDOW // 2)  # their places in a window: a slip can hide the period at one of them
_PERIODS = 12  # periods that are tried for each probe, so the time stays linear in the text


def find_repetition(text: str) -> int | None:
    """Return the offset of the first window of the text that repeats one text, in characters; None without one.

    The text must be valid UTF-8.
    """
    if 4 * len(text) < WINDOW:
        return None
    data = text.encode()
    last = len(data) - WINDOW
    if last < 0:
        return None
    starts = [*range(0, last, WINDOW // 2), last]  # the last window ends with the text
    found = next((start for start in starts if _repeats(data, start)), None)
    return None if found is None else len(data[:found].decode(errors="ignore"))


def _repeats(data: bytes, start: int) -> bool:
    """Whether the window that begins at `start` repeats one text."""
    return any(_has_period(data, start, start + place) for place in _PROBES)


def _has_period(data: bytes, start: int, place: int) -> bool:
    """Whether the window repeats with a period at which the bytes at `place` come again."""
    probe, again = data[place : place + _PROBE], place
    for _ in range(_PERIODS):
        again = data.find(probe, again + 1, place + LONGEST_PERIOD + _PROBE)
        if again < 0:
            return False
        period = again - place
        window = np.frombuffer(data, np.uint8, WINDOW, start)
        if np.count_nonzero(window[period:] != window[:-period]) <= SLIPS:
            return True
    return False
