"""Loops are found wherever they stand and in every script; long regular lists are none."""

import random
import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules.text.repetition import LONGEST_PERIOD, SHORTEST_LOOP, SLIPS, TIMES, WINDOW, find_loop, find_repetition
from tests.datamodules.text.test_response import words

CHINESE = "等一下让我再检查一遍这个结果是不是对的然后得到所以答案应该如果我们用另外种方法"


def chinese(count: int) -> str:
    return "".join(random.Random(0).choices(CHINESE, k=count))


@pytest.mark.parametrize("period", [1, 7, 60, 300, 800, 1_024])
@pytest.mark.parametrize("before", ["I add.", words(5_000)], ids=["short", "long"])
@pytest.mark.parametrize("after", ["", "</think>4", words(5_000)], ids=["tail", "short", "long"])
def test_a_repeated_text_is_found(period: int, before: str, after: str) -> None:
    passage = words(period)[:period]
    assert find_repetition(before + passage * (16_384 // period) + after) is not None
    assert find_repetition(before + passage * (4_000 // period) + after) is None


def test_the_window_is_measured_in_bytes_of_every_script() -> None:
    """Three bytes for each character: 2,731 of them fill a window."""
    loop = chinese(100) * 30
    assert len(loop) < WINDOW < len(loop.encode())
    assert find_repetition(loop) is not None
    assert find_repetition(chinese(3_000)) is None
    assert find_repetition(loop[: WINDOW // 3]) is None


def test_a_loop_at_the_very_end_is_found() -> None:
    text = words(9_001) + " "
    loop = ("Wait, that is 7. " * 1_000)[:WINDOW]
    assert find_repetition(text + loop) is not None
    assert find_repetition(text + loop[: WINDOW // 2]) is None


def test_the_place_is_an_offset_in_characters() -> None:
    text = chinese(9_000) + words(3_000)
    at = find_repetition(text + "Hmm, no. " * 4_000)
    assert at is not None and len(text) - 10 <= at <= len(text) + WINDOW


def test_a_slip_does_not_hide_a_loop() -> None:
    loop = "So the answer is 12, wait, let me check that again. " * 400
    for slip in (100, 2_040, 4_100, 8_000, 12_345):
        assert find_repetition(f"{loop[:slip]}x{loop[slip + 1 :]}") is not None


def moves(disks: int, a: str = "A", b: str = "B", c: str = "C") -> Iterator[tuple[int, str, str]]:
    """The Tower of Hanoi."""
    if disks:
        yield from moves(disks - 1, a, c, b)
        yield disks, a, c
        yield from moves(disks - 1, b, a, c)


REGULAR = {
    "numbered moves": "".join(f"{i}. Move disk {d} from {a} to {c}\n" for i, (d, a, c) in enumerate(moves(9), 1)),
    "moves": "".join(f"Move disk {d} from {a} to {c}\n" for d, a, c in moves(9)),
    "moves of many disks": "".join(f"Move the disk {d} from peg {a} over to peg {c}.\n" for d, a, c in moves(12)),
    "short moves": "".join(f"{a}->{c}\n" for _, a, c in moves(12)),
    "shortest moves": "".join(f"{a}{c} " for _, a, c in moves(13)),
    "moves in Chinese": "".join(f"第{i}步：将圆盘{d}从{a}柱移到{c}柱\n" for i, (d, a, c) in enumerate(moves(9), 1)),
    "moves as JSON": "".join(f"[{d}, {'ABC'.index(a)}, {'ABC'.index(c)}], " for d, a, c in moves(11)),
    "table": "\n".join(f"| {i} | {i * i} | {i**3} |" for i in range(5_000)),
    "binary": "".join(f"{i:010b}\n" for i in range(1_024)),
    "zeros": "".join(f"{i},0,0,0,0,0,0,0,0,0,0\n" for i in range(2_000)),
    "cases": "".join(f"{i} is even.\n{i + 1} is odd.\n" for i in range(2, 2_000, 2)),
    "words": words(80_000),
    "a": "a" * (WINDOW - 1),
}


@pytest.mark.parametrize("name", REGULAR)
def test_a_long_regular_text_is_no_repetition(name: str) -> None:
    assert find_repetition(REGULAR[name]) is None


def test_the_moves_are_those_of_the_tower() -> None:
    assert REGULAR["numbered moves"].endswith("511. Move disk 1 from A to C\n")


@pytest.mark.parametrize("distinct", [SLIPS // 2 - 2, SLIPS + 2])
def test_a_window_may_have_a_few_differing_bytes(distinct: int) -> None:
    """A changed byte differs from the byte before it and from the byte after it, one period on."""
    text = list("It is what it is and so on and on. " * 250)[:WINDOW]
    for k in range(distinct):
        text[300 + 480 * k % (WINDOW - 700)] = "#"
    assert (find_repetition("".join(text)) is not None) == (2 * distinct <= SLIPS)


@pytest.mark.parametrize(
    "text",
    [
        "".join(f"{'a' * 40}{i}" for i in range(24_000)),
        REGULAR["moves"] * 80,
        REGULAR["short moves"] * 50,
        "".join(f"{i % 977:03}" for i in range(330_000)),
        words(1_000_000),
    ],
    ids=["probes", "moves", "short", "long period", "words"],
)
def test_a_million_characters_take_no_quadratic_time(text: str) -> None:
    start = time.process_time()
    find_repetition(text)
    assert time.process_time() - start < 20  # quadratic time would be hours


SENTENCE = "Wait, let me check this again. "


@pytest.mark.parametrize("before", ["", "So x = 7. ", words(3_000)], ids=["none", "short", "long"])
@pytest.mark.parametrize("repeated", [SENTENCE, "1", "等一下，让我再检查。", "<think>No.</think>", words(999)[:999]])
@pytest.mark.parametrize("rest", [0, 1, 0.4], ids=["whole", "a character more", "a part more"])
def test_a_loop_at_the_end_is_found_with_its_begin(before: str, repeated: str, rest: float) -> None:
    """Its last round may be cut anywhere, and a longer one than needed changes nothing but the number."""
    part = repeated[: 1 if rest == 1 else int(rest * len(repeated))]
    for times in (max(TIMES, -(-SHORTEST_LOOP // len(repeated.encode()))), 300):
        found = find_loop(before + repeated * times + part)
        assert found is not None
        assert 0 <= len(before) - found.start < len(repeated)  # what is before may end as the repeated text does
        assert len(found.repeated) == len(repeated) and found.repeated in repeated * 2
        assert found.times in (times, times + 1)


@pytest.mark.parametrize("after", [words(200), "x = 7", "</think>"], ids=["words", "answer", "tag"])
def test_what_follows_a_loop_ends_it(after: str) -> None:
    assert find_loop(SENTENCE * 50 + after) is None


@pytest.mark.parametrize("text", ["", "7", SENTENCE * (TIMES - 1), "a" * (SHORTEST_LOOP - 1), words(20_000)])
def test_a_short_end_or_a_text_without_repetition_is_no_loop(text: str) -> None:
    assert find_loop(text) is None


@pytest.mark.parametrize("name", sorted(set(REGULAR) - {"a"}))
def test_a_long_regular_text_ends_in_no_loop(name: str) -> None:
    assert find_loop(REGULAR[name]) is None


def test_a_character_that_the_limit_cut_in_half_and_white_space_do_not_hide_a_loop() -> None:
    assert find_loop("好的。" * 60 + "\ufffd") is not None
    assert find_loop(SENTENCE * 20 + "\n\n") is not None
    assert find_loop("\n" * 400) is not None


def test_a_period_above_the_longest_is_no_loop() -> None:
    assert find_loop(words(LONGEST_PERIOD)[:LONGEST_PERIOD] * 5) is not None
    assert find_loop(words(LONGEST_PERIOD + 1)[: LONGEST_PERIOD + 1] * 5) is None


@settings(deadline=None)
@given(st.text(max_size=400), st.text(min_size=1, max_size=40), st.integers(0, 80))
def test_any_text_has_an_answer_and_a_loop_stands_where_it_says(before: str, repeated: str, times: int) -> None:
    text = before + repeated * times
    found = find_loop(text)
    if found is not None:
        assert 0 <= found.start <= len(text) and found.times >= TIMES and found.repeated
        assert text[found.start :].startswith(found.repeated)
    assert found is not None or len((repeated * times).encode()) < SHORTEST_LOOP or times < TIMES


def test_four_times_are_a_loop_and_three_are_none() -> None:
    assert find_loop("So x = 7." + words(100) * 4) is not None
    assert find_loop("So x = 7." + words(100) * 3) is None
