"""Dropped rows with a mark at each fault; of long texts only the parts near it."""

import io

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from datamodules.layouts.conversation import Message, RawExample
from datamodules.preview.content import PreviewRow
from datamodules.preview.dropped import NEAR, has_reason, marked, print_dropped
from datamodules.text.malformed import Fault
from datamodules.tokens.process import ProcessedExample


def row(response: object, *faults: Fault) -> PreviewRow:
    raw = RawExample({}, "a", "all", (Message("user", "Why [b]?"), Message("assistant", response)))
    return PreviewRow(3, ProcessedExample("a", raw=raw, faults=faults), "rows", None)


def printed(*rows: PreviewRow) -> str:
    file = io.StringIO()
    print_dropped(Console(file=file, width=100), rows)
    return file.getvalue()


def test_each_place_has_the_number_of_its_reason() -> None:
    text = printed(row("a</think>b</think>\x1b[2Jc", Fault("second", 10), Fault("no place"), Fault("end", 23)))
    assert "▶1 dropped: second\ndropped: no place\n▶3 dropped: end\n" in text
    assert "a</think>b▶1</think>␛[2Jc▶3\n" in text and "Why [b]?" in text and "row 3 · a · rows · dropped" in text


def test_a_response_that_is_no_text_is_shown_too() -> None:
    assert "response\n\n" in printed(row(None, Fault("no text")))
    assert "{'a': 1}" in printed(row({"a": 1}, Fault("no text")))


def test_a_place_after_the_end_is_the_end() -> None:
    assert marked("abc", [Fault("x", 9)]).plain == "abc▶1"


def test_characters_far_from_all_places_are_counted() -> None:
    text = marked("a" * 10_000 + "b" + "c" * 10_000, [Fault("x", 10_000)]).plain
    far = 10_000 - 2 * NEAR
    assert text == f"{'a' * NEAR}⋯ {far:,} characters ⋯{'a' * NEAR}▶1b{'c' * (NEAR - 1)}⋯ {far + 1:,} characters ⋯" + (
        "c" * NEAR
    )


@given(st.integers(0, 9_000), st.lists(st.integers(0, 9_000), max_size=4))
def test_every_place_is_marked_once_and_no_character_is_lost(length: int, places: list[int]) -> None:
    shown = marked("x" * length, [Fault("r", at) for at in places])
    assert all(shown.plain.count(f"▶{number}") == 1 for number in range(1, len(places) + 1))
    hidden = [int(part.split()[0].replace(",", "")) for part in shown.plain.split("⋯")[1::2]]
    assert shown.plain.count("x") + sum(hidden) == length
    assert all(part > 0 for part in hidden)


def test_a_reason_is_found_by_any_part_of_it_in_any_case() -> None:
    one = row("a", Fault("think block never closed (data.malformed_overrides.unclosed)"), Fault("other"))
    assert all(has_reason(one, wanted) for wanted in ("", "unclosed", "Never Closed", "other"))
    assert not has_reason(one, "nested") and not has_reason(row("a"), "")


def test_all_texts_of_a_conversation_are_shown_and_the_places_are_in_the_last() -> None:
    said = Message("system", "Brief."), Message("user", "Hi"), Message("assistant", "1</think>", "Hm")
    raw = RawExample({}, "a", "all", (*said, Message("user", "And?"), Message("assistant", "No", "Two twos")))
    text = printed(PreviewRow(3, ProcessedExample("a", raw=raw, faults=(Fault("x", 2),)), "rows", None))
    names = "system\nBrief.\nearlier instruction\nHi\nearlier reasoning\nHm\nearlier response\n1</think>\n"
    assert f"{names}instruction\nAnd?\nreasoning\nTwo twos\nresponse\nNo▶1\n" in text


def test_a_row_that_cannot_be_read_is_shown_with_its_columns() -> None:
    raw = RawExample({"messages": [{"role": "tool"}], "at": b"\x1b"}, "a", "all", (), "tool calls")
    text = printed(PreviewRow(3, ProcessedExample("a", raw=raw, faults=(Fault("tool calls"),)), "rows", None))
    assert 'row\n{"messages": [{"role": "tool"}], "at": "b' in text
