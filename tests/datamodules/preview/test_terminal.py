"""The printed preview: no character of a row is lost, and none can steer the terminal."""

from io import StringIO

import pytest
from rich.console import Console

from datamodules.prepare.stats import DataStats
from datamodules.preview import terminal as preview
from datamodules.preview.content import Bar, PreviewRow, with_marks
from datamodules.preview.terminal import coloured, histogram, print_preview, print_row
from datamodules.text.malformed import Fault
from datamodules.text.segments import Role
from datamodules.tokens.process import OVERLONG, ProcessedExample
from datamodules.tokens.tokenizer import ThinkTokenizer
from tests.datamodules.preview.test_content import ANSWER, NASTY, report_of, row_of


def console(colour: bool = False, width: int = 100) -> Console:
    return Console(file=StringIO(), width=width, force_terminal=colour, color_system="truecolor" if colour else None)


def printed(of: Console) -> str:
    assert isinstance(of.file, StringIO)
    return of.file.getvalue()


def test_every_character_is_shown_in_the_colour_of_its_role(tiny_tokenizer: ThinkTokenizer) -> None:
    example = row_of(tiny_tokenizer).example
    text = coloured(example, tiny_tokenizer.decode, marked=False)
    assert text.plain == with_marks(tiny_tokenizer.decode(example.ids.tolist()))
    spans = {text.plain[span.start : span.end]: span.style for span in text.spans}
    assert spans["<think>"] == spans["</think>"] == preview.ROLE_STYLES[Role.TAG_OPEN]
    assert spans["One 好."] == preview.ROLE_STYLES[Role.THOUGHT]
    assert spans[with_marks(ANSWER)] == preview.ROLE_STYLES[Role.ANSWER]
    assert "dim" in str(spans[with_marks(f"Ask: {NASTY}\nReply: ")])


@pytest.mark.parametrize("colour", [True, False])
def test_a_row_cannot_steer_the_terminal_or_become_markup(colour: bool, tiny_tokenizer: ThinkTokenizer) -> None:
    out = console(colour, 400)
    row = row_of(tiny_tokenizer, row_id="[red]\x1b[2J")
    report = report_of([row], [("reason\x1b[1m [blink]", "[i]\x1b]0;title")])
    print_preview(out, [row], report, tiny_tokenizer.decode, 512)
    print_row(out, row, [("response", NASTY)], tiny_tokenizer.decode)
    text = printed(out)
    assert "\x1b[31m" not in text and "\x1b[2J" not in text and "\x1b]0" not in text
    assert all(
        shown in text for shown in ("[bold]␛[31mred[/bold]␉好🦊 <b>&amp;", "[red]␛[2J", "[i]␛]0;title", "[blink]")
    )


def test_without_colour_marks_name_the_roles(tiny_tokenizer: ThinkTokenizer) -> None:
    out = console()
    row = row_of(tiny_tokenizer, ["A."], "B")
    print_preview(out, [row], report_of([row]), tiny_tokenizer.decode, 512)
    assert "[open]<think>[thought]A.[close]</think>[answer]B[end]<|im_end|>" in printed(out)
    assert "\x1b" not in printed(out)


def test_lines_are_not_wrapped_in_a_pipe(tiny_tokenizer: ThinkTokenizer) -> None:
    out = console(width=40)
    row = row_of(tiny_tokenizer, ["word " * 60])
    print_preview(out, [row], report_of([row]), tiny_tokenizer.decode, 512)
    assert "word " * 60 in printed(out)


def test_all_numbers_of_the_report_are_printed(tiny_tokenizer: ThinkTokenizer) -> None:
    out = console()
    rows = [row_of(tiny_tokenizer, position=i, notes=("no opening tag (repaired)",)) for i in range(3)]
    report = report_of(rows, [(OVERLONG, f"long-{i}") for i in range(7)])
    report.read += 5
    print_preview(out, rows[:1], report, tiny_tokenizer.decode, 512)
    lines = [" ".join(line.split()) for line in printed(out).splitlines()]
    assert "15 rows read, 3 kept for train, 7 dropped, 5 not used, because their split was full" in lines
    assert f"{OVERLONG} 7 46.7% long-0, long-1, long-2, long-3, long-4, …" in lines
    assert "no opening tag (repaired) 3 100.0%" in lines
    assert "512 100% 100%" in lines
    tokens, supervised = len(rows[0].example.ids), rows[0].example.supervised
    assert f"{supervised / tokens:.1%} of {3 * tokens} tokens are supervised" in lines
    assert next(line for line in lines if line.startswith("opening tag")).split()[2] == "6"


def test_a_row_is_printed_token_by_token(tiny_tokenizer: ThinkTokenizer) -> None:
    out = console()
    row = row_of(tiny_tokenizer, notes=("no opening tag (repaired)",))
    print_row(out, row, [("instruction", "The instruction"), ("response", "The response")], tiny_tokenizer.decode)
    text = printed(out)
    assert all(words in text for words in ("The instruction", "The response", "kept for train", "(repaired)"))
    assert "step 1 of 2" in text and "step 2 of 2" in text and "step 3" not in text
    cells = [line.split() for line in text.splitlines()]
    assert ["0", str(row.example.ids[0]), "prompt", "no", *tiny_tokenizer.decode([row.example.ids[0]]).split()] in cells
    last = len(row.example.ids) - 1
    assert [str(last), str(tiny_tokenizer.end_id), "end", "yes", "<|im_end|>"] in cells
    assert sum(len(line) >= 4 and line[0].isdigit() and line[1].isdigit() for line in cells) == last + 1


def test_a_dropped_row_is_printed_with_its_reason(tiny_tokenizer: ThinkTokenizer) -> None:
    out = console()
    row = PreviewRow(
        4,
        ProcessedExample("cut", faults=(Fault("think block never closed (data.malformed_overrides.unclosed)"),)),
        "rows.jsonl",
        None,
    )
    print_row(out, row, [("response", "<think>never")], tiny_tokenizer.decode)
    assert "dropped: think block never closed (data.malformed_overrides.unclosed)" in printed(out)
    assert "none: the row was dropped before it was tokenized" in printed(out)


@pytest.mark.parametrize("width", [12, 30, 80, 300])
def test_a_histogram_fits_its_width_and_shows_small_numbers(width: int) -> None:
    found = [Bar("0–64", 0, 12_345), Bar("65–96", 65, 1), Bar("97–128", 97, 1)]
    out = console(width=300)
    out.print(histogram("tokens of a row", found, width, limit=96))
    lines = printed(out).splitlines()
    assert [line for line in lines[1:4] if len(line) > max(width, 17)] == []  # 17: the label, one column and the number
    assert lines[2].split()[1] in ("▏", "█") and "█" in lines[1] and lines[3].split()[1:] == ["░", "1"]
    assert lines[4].split()[:1] == ["░"] and "data.max_length, 96" in lines[4]


def test_an_empty_report_is_printed_without_error() -> None:
    out = console()
    print_preview(out, [], DataStats(), lambda ids: "", 512)
    assert "no row was dropped" in printed(out)
