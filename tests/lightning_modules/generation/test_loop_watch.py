import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_modules.generation.loop_watch import LoopWatch


def times(tokens: list[int], length: int) -> int:
    """How often the last tokens stand in the list, from its end backwards, without overlap."""
    window, end, found = tokens[-length:], len(tokens), 0
    if len(tokens) < length:
        return 0
    while end >= length:
        if tokens[end - length : end] == window:
            found, end = found + 1, end - length
        else:
            end -= 1
    return found


@given(
    first=st.lists(st.integers(0, 2), min_size=1, max_size=25),
    second=st.lists(st.integers(0, 2), min_size=1, max_size=25),
    length=st.integers(1, 4),
)
def test_the_count_is_that_of_a_search_also_when_a_slot_is_used_again(
    first: list[int], second: list[int], length: int
) -> None:
    watch = LoopWatch(length, 3, 25, torch.device("cpu"))
    tokens = torch.zeros(3, 25, dtype=torch.int64)
    for row in (first, second):
        for at, token in enumerate(row):
            tokens[2, at], tokens[0, at] = token, 1
            both = watch.times(tokens, torch.tensor([at, at]), torch.tensor([2, 0]))
            assert both.tolist() == [times(row[: at + 1], length), (at + 1) // length]
