"""What `preview` prints: nothing of a row is lost, misread or able to steer the terminal."""

from collections.abc import Sequence
from io import StringIO
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from datamodules.prepare.stats import STEP_EDGES, TOKEN_EDGES, DataStats
from datamodules.preview import terminal as preview
from datamodules.preview.terminal import (
    Row,
    bars,
    coloured,
    explain,
    figures,
    histogram,
    pieces,
    show,
    suggestion,
    visible,
)
from datamodules.text.segments import Role
from datamodules.tokens.process import OVERLONG, ProcessedExample
from datamodules.tokens.tokenizer import ThinkTokenizer

NASTY = "[bold]\x1b[31mred[/bold]\t好🦊 <b>&amp;"
THOUGHTS, ANSWER = ["One 好.", f"Two é.\n{NASTY}"], "\n\nx = 7"


def row_of(
    tokenizer: ThinkTokenizer, thoughts: Sequence[str] = THOUGHTS, answer: str = ANSWER, position: int = 0, **more: Any
) -> Row:
    """A row that was kept, of these thoughts, without any of the code that makes rows."""
    spans = [(Role.PROMPT, tokenizer.encode([f"Ask: {NASTY}\nReply: "])[0])]
    for thought in thoughts:
        inner = tokenizer.encode([thought])[0]
        spans += [(Role.TAG_OPEN, [tokenizer.open_id]), (Role.THOUGHT, inner), (Role.TAG_CLOSE, [tokenizer.close_id])]
    spans += [(Role.ANSWER, tokenizer.encode([answer])[0]), (Role.END, [tokenizer.end_id])]
    ids = np.array([i for _, piece in spans for i in piece], np.int32)
    roles = np.repeat(np.array([role for role, _ in spans], np.int8), [len(piece) for _, piece in spans])
    close = np.flatnonzero(roles == Role.TAG_CLOSE)
    outcome = ProcessedExample(
        more.get("row_id", f"id-{position}"), instruction=NASTY, thoughts=list(thoughts), answer=answer, ids=ids,
        roles=roles, length=len(ids), closes_at=int(close[-1]) + 1 if len(close) else 0, steps=len(thoughts),
        supervised=int((roles != 0).sum()), notes=more.get("notes", ()),
    )  # fmt: skip
    return Row(position, outcome, "rows.jsonl", "train")


def report_of(rows: Sequence[Row], dropped: Sequence[tuple[str, str]] = ()) -> DataStats:
    report = DataStats(read=len(rows) + len(dropped))
    for row in rows:
        report.measure(row.outcome)
        report.keep(row.outcome, "train", row.source)
    for reason, row_id in dropped:
        report.drop(reason, row_id)
    return report


def console(colour: bool = False, width: int = 100) -> Console:
    return Console(file=StringIO(), width=width, force_terminal=colour, color_system="truecolor" if colour else None)


def printed(of: Console) -> str:
    assert isinstance(of.file, StringIO)
    return of.file.getvalue()


def test_pieces_are_the_tokens_in_order_and_lose_no_character(tiny_tokenizer: ThinkTokenizer) -> None:
    outcome = row_of(tiny_tokenizer).outcome
    found = list(pieces(outcome, tiny_tokenizer.decode))
    assert [place for piece in found for place in range(piece.start, piece.stop)] == list(range(len(outcome.ids)))
    assert "".join(piece.text for piece in found) == tiny_tokenizer.decode(outcome.ids.tolist())
    assert all(set(outcome.roles[piece.start : piece.stop].tolist()) == {piece.role} for piece in found)
    assert "\ufffd" not in "".join(piece.text for piece in found)
    assert any(piece.stop - piece.start > 1 for piece in found), "no character in pieces: the test shows nothing"


def test_half_a_character_does_not_swallow_what_comes_after_it(tiny_tokenizer: ThinkTokenizer) -> None:
    half = tiny_tokenizer.encode(["🦊"])[0][:1]
    assert len(tiny_tokenizer.encode(["🦊"])[0]) > 1
    ids = [*half, tiny_tokenizer.close_id, *half]
    roles = np.array([Role.THOUGHT, Role.TAG_CLOSE, Role.ANSWER], np.int8)
    found = list(pieces(ProcessedExample("cut", ids=np.array(ids, np.int32), roles=roles), tiny_tokenizer.decode))
    assert [(piece.start, piece.stop, piece.role) for piece in found] == [
        (0, 1, Role.THOUGHT), (1, 2, Role.TAG_CLOSE), (2, 3, Role.ANSWER),
    ]  # fmt: skip


def test_what_cannot_be_seen_is_marked() -> None:
    assert visible("a\tb\r\n\x1b[31m\u200b\ud800é好👨‍👩‍👧") == "a␉b␍⏎\n␛[31m⟨U+200B⟩⟨U+D800⟩é好👨‍👩‍👧"
    assert visible("\x9b2J\u202e\x7f") == "⟨U+009B⟩2J⟨U+202E⟩⟨U+007F⟩"


def test_a_colour_for_each_role_and_every_character_there(tiny_tokenizer: ThinkTokenizer) -> None:
    outcome = row_of(tiny_tokenizer).outcome
    text = coloured(outcome, tiny_tokenizer.decode, marked=False)
    assert text.plain == visible(tiny_tokenizer.decode(outcome.ids.tolist()))
    spans = {text.plain[span.start : span.end]: span.style for span in text.spans}
    assert spans["<think>"] == spans["</think>"] == preview.STYLES[Role.TAG_OPEN]
    assert spans["One 好."] == preview.STYLES[Role.THOUGHT]
    assert spans[visible(ANSWER)] == preview.STYLES[Role.ANSWER]
    assert "dim" in str(spans[visible(f"Ask: {NASTY}\nReply: ")])


@pytest.mark.parametrize("colour", [True, False])
def test_a_row_cannot_steer_the_terminal_nor_be_taken_for_markup(colour: bool, tiny_tokenizer: ThinkTokenizer) -> None:
    out = console(colour, 400)
    row = row_of(tiny_tokenizer, row_id="[red]\x1b[2J")
    report = report_of([row], [("reason\x1b[1m [blink]", "[i]\x1b]0;title")])
    show(out, [row], report, tiny_tokenizer.decode, 512)
    explain(out, row, NASTY, NASTY, tiny_tokenizer.decode)
    text = printed(out)
    assert "\x1b[31m" not in text and "\x1b[2J" not in text and "\x1b]0" not in text
    assert all(
        shown in text for shown in ("[bold]␛[31mred[/bold]␉好🦊 <b>&amp;", "[red]␛[2J", "[i]␛]0;title", "[blink]")
    )


def test_without_colour_marks_name_the_roles(tiny_tokenizer: ThinkTokenizer) -> None:
    out = console()
    row = row_of(tiny_tokenizer, ["A."], "B")
    show(out, [row], report_of([row]), tiny_tokenizer.decode, 512)
    assert "[open]<think>[thought]A.[close]</think>[answer]B[end]<|im_end|>" in printed(out)
    assert "\x1b" not in printed(out)


def test_a_line_is_not_broken_in_a_pipe(tiny_tokenizer: ThinkTokenizer) -> None:
    out = console(width=40)
    row = row_of(tiny_tokenizer, ["word " * 60])
    show(out, [row], report_of([row]), tiny_tokenizer.decode, 512)
    assert "word " * 60 in printed(out)


def test_the_report_is_there_in_full(tiny_tokenizer: ThinkTokenizer) -> None:
    out = console()
    rows = [row_of(tiny_tokenizer, position=i, notes=("no opening tag (repaired)",)) for i in range(3)]
    report = report_of(rows, [(OVERLONG, f"long-{i}") for i in range(7)])
    report.read += 5
    show(out, rows[:1], report, tiny_tokenizer.decode, 512)
    lines = [" ".join(line.split()) for line in printed(out).splitlines()]
    assert "15 rows read, 3 kept for train, 7 left out, 5 passed over, as their split was full" in lines
    assert f"{OVERLONG} 7 46.7 % long-0, long-1, long-2, long-3, long-4, …" in lines
    assert "no opening tag (repaired) 3 100.0 %" in lines
    assert "512 100% 100%" in lines
    tokens, supervised = len(rows[0].outcome.ids), rows[0].outcome.supervised
    assert f"{supervised / tokens:.1%} of {3 * tokens} tokens are supervised" in lines
    assert next(line for line in lines if line.startswith("opening tag")).split()[2] == "6"


def test_a_row_is_explained_token_by_token(tiny_tokenizer: ThinkTokenizer) -> None:
    out = console()
    row = row_of(tiny_tokenizer, notes=("no opening tag (repaired)",))
    explain(out, row, "As it was asked", "As it was said", tiny_tokenizer.decode)
    text = printed(out)
    assert all(words in text for words in ("As it was asked", "As it was said", "kept for train", "(repaired)"))
    assert "step 1 of 2" in text and "step 2 of 2" in text and "step 3" not in text
    cells = [line.split() for line in text.splitlines()]
    assert ["0", str(row.outcome.ids[0]), "prompt", "no", *tiny_tokenizer.decode([row.outcome.ids[0]]).split()] in cells
    last = len(row.outcome.ids) - 1
    assert [str(last), str(tiny_tokenizer.end_id), "end", "yes", "<|im_end|>"] in cells
    assert sum(len(line) >= 4 and line[0].isdigit() and line[1].isdigit() for line in cells) == last + 1


def test_a_row_that_was_left_out_is_explained_by_its_reason(tiny_tokenizer: ThinkTokenizer) -> None:
    out = console()
    reason = "think block never closed (data.malformed_overrides.unclosed)"
    row = Row(4, ProcessedExample("cut", reason=reason), "rows.jsonl", None)
    explain(out, row, "What?", "<think>never", tiny_tokenizer.decode)
    assert "left out: think block never closed (data.malformed_overrides.unclosed)" in printed(out)
    assert "none: the row was left out before that" in printed(out)


@pytest.mark.parametrize("edges", [TOKEN_EDGES, STEP_EDGES])
def test_bars_are_labelled_by_what_they_count(edges: Sequence[int]) -> None:
    report = DataStats()
    for value in (edges[2], edges[2] + 1, edges[-1] + 1):
        report.measure(ProcessedExample("a", length=value, steps=value))
    counts = report.lengths if edges is TOKEN_EDGES else report.steps
    found = bars(edges, counts)
    assert sum(count for _, _, count in found) == 3
    assert all(found[place][2] == 1 for place in (0, 1, -1)), "empty bars at the ends, or values in the wrong ones"
    assert found[0][0].split("–")[-1] == f"{edges[2]:,}"
    assert found[1][1] == edges[2] + 1
    assert found[-1][0] == f"over {edges[-1]:,}"
    assert bars(edges, [0] * (len(edges) + 1)) == []


@pytest.mark.parametrize("width", [12, 30, 80, 300])
def test_a_histogram_fits_its_width_and_shows_the_few(width: int) -> None:
    found = [("0–64", 0, 12_345), ("65–96", 65, 1), ("97–128", 97, 1)]
    out = console(width=300)
    out.print(histogram("tokens of a row", found, width, limit=96))
    lines = printed(out).splitlines()
    assert [line for line in lines[1:4] if len(line) > max(width, 17)] == []  # 17: label, a cell and the number
    assert lines[2].split()[1] in ("▏", "█") and "█" in lines[1] and lines[3].split()[1:] == ["░", "1"]
    assert lines[4].split()[:1] == ["░"] and "data.max_length, 96" in lines[4]


@pytest.mark.parametrize(
    ("lengths", "dropped", "words"),
    [
        ([], [], "no length can be suggested"),
        ([100] * 10, [], "Every row is whole within data.max_length, 256"),
        ([100] * 9 + [3000], [(OVERLONG, "a")], "Suggested data.max_length: 512, the shortest of these with nine rows"),
        ([3000] * 10, [(OVERLONG, "a")], "4,096, the shortest of these with nine rows in ten whole (100%). It is 256"),
        ([100] + [9000] * 9, [(OVERLONG, "a")], "8,192, the longest of these (10%)"),
    ],
)
def test_a_length_is_suggested(lengths: list[int], dropped: list[tuple[str, str]], words: str) -> None:
    report = report_of([], dropped)
    for length in lengths:
        report.measure(ProcessedExample("a", length=length))
    assert words in suggestion(report, 256)


def test_nothing_read_shows_as_nothing() -> None:
    out = console()
    show(out, [], DataStats(), lambda ids: "", 512)
    assert "no row was left out" in printed(out)
    assert figures(DataStats()) == {"rows read": 0, "left out": 0}
