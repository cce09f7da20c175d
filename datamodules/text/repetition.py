"""Text that repeats itself without end, as a model that is caught in a loop writes it.

A loop gives the same bytes again and again, exactly. A long list of numbered moves, a table or a proof by cases is
regular too, but its lines differ from each other. So a window is a repetition if nearly each of its bytes equals the
byte one period before, for one period.

`find_repetition` looks for it in the long responses of data, `find_loop` at the end of what a model wrote.
"""

from typing import NamedTuple

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
# A response is shorter than a window, so its end counts as a loop from this length on, if it has the text so many times
SHORTEST_LOOP = 256  # bytes; about 64 tokens, as the 4 times 16 tokens that stop a loop while it is written
TIMES = 4


class Loop(NamedTuple):
    """The end of a text that repeats one text."""

    start: int  # offset of its first character
    repeated: str  # the text that it repeats
    times: int  # rounded down


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


def find_loop(text: str) -> Loop | None:
    """Return the loop that a text ends in; None if it ends in none. White space at its end does not hide one."""
    for end in (text, text.rstrip()):
        if 4 * len(end) >= SHORTEST_LOOP and (found := _loop_at_end(end)) is not None:
            return found
    return None


def _loop_at_end(text: str) -> Loop | None:
    # The limit of a response can cut a character in half; decoded, it is this one
    data = text.rstrip("\ufffd").encode(errors="replace")
    probe, again = data[-_PROBE:], len(data) - _PROBE
    for _ in range(_PERIODS):
        again = data.rfind(probe, max(0, len(data) - _PROBE - LONGEST_PERIOD), again + _PROBE - 1)
        if again < 0:
            return None
        period = len(data) - _PROBE - again
        length = max(SHORTEST_LOOP, TIMES * period)
        if length <= len(data) and _slips(data, len(data) - length, length, period) <= SLIPS * length // WINDOW:
            return _whole_loop(data, length, period)
    return None


def _whole_loop(data: bytes, length: int, period: int) -> Loop:
    """The loop whose last `length` bytes are known, from its first byte on."""
    whole = np.frombuffer(data, np.uint8)
    differ = np.flatnonzero(whole[:-period][: len(data) - length] != whole[period:][: len(data) - length])
    start = int(differ[-1]) + 1 if len(differ) else 0
    while data[start] & 0xC0 == 0x80:  # within a character
        start += 1
    repeated = data[start : start + period].decode(errors="ignore")
    return Loop(len(data[:start].decode()), repeated, (len(data) - start) // period)


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
        if _slips(data, start, WINDOW, again - place) <= SLIPS:
            return True
    return False


def _slips(data: bytes, start: int, length: int, period: int) -> int:
    """Return the number of bytes in a part of the data that differ from the byte one period before, within the part."""
    part = np.frombuffer(data, np.uint8, length, start)
    return int(np.count_nonzero(part[period:] != part[:-period]))
