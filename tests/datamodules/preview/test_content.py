"""The content of a preview: tokens and their text, marks for invisible characters, histograms, the suggested length."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from datamodules.prepare.stats import IDS_PER_REASON, STEP_EDGES, TOKEN_EDGES, DataStats
from datamodules.preview.content import (
    PreviewRow,
    bars,
    dropped_table,
    note_table,
    role_table,
    row_counts,
    suggestion,
    token_texts,
    with_marks,
)
from datamodules.text.malformed import Fault
from datamodules.text.segments import Role
from datamodules.tokens.process import OVERLONG, ProcessedExample
from datamodules.tokens.tokenizer import ThinkTokenizer

NASTY = "[bold]\x1b[31mred[/bold]\t好🦊 <b>&amp;"
THOUGHTS, ANSWER = ["One 好.", f"Two é.\n{NASTY}"], "\n\nx = 7"


def row_of(
    tokenizer: ThinkTokenizer, thoughts: Sequence[str] = THOUGHTS, answer: str = ANSWER, position: int = 0, **more: Any
) -> PreviewRow:
    """A row that was kept, made from its parts without the code under test."""
    parts = [(Role.PROMPT, tokenizer.encode([f"Ask: {NASTY}\nReply: "])[0])]
    for thought in thoughts:
        inner = tokenizer.encode([thought])[0]
        parts += [(Role.TAG_OPEN, [tokenizer.open_id]), (Role.THOUGHT, inner), (Role.TAG_CLOSE, [tokenizer.close_id])]
    parts += [(Role.ANSWER, tokenizer.encode([answer])[0]), (Role.END, [tokenizer.end_id])]
    ids = np.array([i for _, part in parts for i in part], np.int32)
    roles = np.repeat(np.array([role for role, _ in parts], np.int8), [len(part) for _, part in parts])
    close = np.flatnonzero(roles == Role.TAG_CLOSE)
    example = ProcessedExample(
        more.get("row_id", f"id-{position}"), instruction=NASTY, thoughts=list(thoughts), answer=answer, ids=ids,
        roles=roles, length=len(ids), closes_at=int(close[-1]) + 1 if len(close) else 0, steps=len(thoughts),
        supervised=int((roles != 0).sum()), notes=more.get("notes", ()),
    )  # fmt: skip
    return PreviewRow(position, example, "rows.jsonl", "train")


def report_of(rows: Sequence[PreviewRow], dropped: Sequence[tuple[str, str]] = ()) -> DataStats:
    report = DataStats(read=len(rows) + len(dropped))
    for row in rows:
        report.measure(row.example)
        report.keep(row.example, "train", row.source)
    for reason, row_id in dropped:
        report.drop(ProcessedExample(row_id, faults=(Fault(reason),)))
    return report


def test_token_texts_are_the_tokens_in_order_and_lose_no_character(tiny_tokenizer: ThinkTokenizer) -> None:
    example = row_of(tiny_tokenizer).example
    found = list(token_texts(example, tiny_tokenizer.decode))
    assert [place for one in found for place in range(one.start, one.stop)] == list(range(len(example.ids)))
    assert "".join(one.text for one in found) == tiny_tokenizer.decode(example.ids.tolist())
    assert all(set(example.roles[one.start : one.stop].tolist()) == {one.role} for one in found)
    assert "\ufffd" not in "".join(one.text for one in found)
    assert any(one.stop - one.start > 1 for one in found), "no character has several tokens, so the test proves nothing"


def test_half_a_character_does_not_absorb_the_next_token(tiny_tokenizer: ThinkTokenizer) -> None:
    half = tiny_tokenizer.encode(["🦊"])[0][:1]
    assert len(tiny_tokenizer.encode(["🦊"])[0]) > 1
    ids = [*half, tiny_tokenizer.close_id, *half]
    roles = np.array([Role.THOUGHT, Role.TAG_CLOSE, Role.ANSWER], np.int8)
    found = list(token_texts(ProcessedExample("cut", ids=np.array(ids, np.int32), roles=roles), tiny_tokenizer.decode))
    assert [(one.start, one.stop, one.role) for one in found] == [
        (0, 1, Role.THOUGHT), (1, 2, Role.TAG_CLOSE), (2, 3, Role.ANSWER),
    ]  # fmt: skip


def test_invisible_characters_are_marked() -> None:
    assert with_marks("a\tb\r\n\x1b[31m\u200b\ud800é好👨‍👩‍👧") == "a␉b␍⏎\n␛[31m⟨U+200B⟩⟨U+D800⟩é好👨‍👩‍👧"
    assert with_marks("\x9b2J\u202e\x7f") == "⟨U+009B⟩2J⟨U+202E⟩⟨U+007F⟩"


@pytest.mark.parametrize("edges", [TOKEN_EDGES, STEP_EDGES])
def test_bars_are_labelled_with_the_values_that_they_count(edges: Sequence[int]) -> None:
    report = DataStats()
    for value in (edges[2], edges[2] + 1, edges[-1] + 1):
        report.measure(ProcessedExample("a", length=value, steps=value))
    counts = report.lengths if edges is TOKEN_EDGES else report.steps
    found = bars(edges, counts)
    assert sum(count for _, _, count in found) == 3
    assert all(found[place][2] == 1 for place in (0, 1, -1)), "empty bars at the ends, or a value in the wrong bar"
    assert found[0][0].split("–")[-1] == f"{edges[2]:,}"
    assert found[1][1] == edges[2] + 1
    assert found[-1][0] == f"over {edges[-1]:,}"
    assert bars(edges, [0] * (len(edges) + 1)) == []


@pytest.mark.parametrize(
    ("lengths", "dropped", "words"),
    [
        ([], [], "no length can be suggested"),
        ([100] * 10, [], "Every row fits into data.max_length, 256"),
        (
            [100] * 9 + [3000],
            [(OVERLONG, "a")],
            "Suggested data.max_length: 512, the shortest of these into which nine",
        ),
        (
            [3000] * 10,
            [(OVERLONG, "a")],
            "4,096, the shortest of these into which nine rows in ten fit (100%). It is 256",
        ),
        ([100] + [9000] * 9, [(OVERLONG, "a")], "8,192, the longest of these (10%)"),
    ],
)
def test_a_length_is_suggested(lengths: list[int], dropped: list[tuple[str, str]], words: str) -> None:
    report = report_of([], dropped)
    for length in lengths:
        report.measure(ProcessedExample("a", length=length))
    assert words in suggestion(report, 256)


def test_tables_are_sorted_and_have_marks_in_place_of_invisible_characters() -> None:
    report = DataStats(read=10, kept={"train": 4}, notes={"rare\x1b": 1, "often": 3})
    for reason in ["rare", *["often\x1b"] * (IDS_PER_REASON + 1)]:
        report.drop(ProcessedExample("a\tb", faults=(Fault(reason),)))
    often, rare = dropped_table(report)
    assert often == ("often␛", f"{IDS_PER_REASON + 1}", "60.0%", "a␉b, " * IDS_PER_REASON + "…")
    assert rare == ("rare", "1", "10.0%", "a␉b")
    assert note_table(report) == [("often", "3", "75.0%"), ("rare␛", "1", "25.0%")]


def test_every_row_read_is_counted_once() -> None:
    report = DataStats(read=10, kept={"train": 4, "val": 1}, dropped={"bad": 2})
    read, *results = row_counts(report).values()
    assert read == sum(results) == 10
    assert row_counts(DataStats()) == {"rows read": 0, "dropped": 0}


def test_ratios_of_roles_sum_to_one(tiny_tokenizer: ThinkTokenizer) -> None:
    row = row_of(tiny_tokenizer)
    table = role_table(report_of([row]))
    assert [role for role, _, _ in table] == list(Role)
    assert sum(count for _, count, _ in table) == len(row.example.ids)
    assert sum(ratio for _, _, ratio in table) == pytest.approx(1)
