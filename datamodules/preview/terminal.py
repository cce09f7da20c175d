"""What `preview` shows in a terminal. Functions from what became of rows to what rich prints, and no more.

All text of the data goes through `visible` and into Text objects: neither a bracket nor an escape code in a row is ever
taken for markup, and what cannot be seen in it can.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import ceil
from typing import NamedTuple

from rich import box
from rich.console import Console, Group, RenderableType
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from datamodules.prepare.stats import ENOUGH, IDS_PER_REASON, STEP_EDGES, TOKEN_EDGES, DataStats
from datamodules.text.segments import Role
from datamodules.tokens.process import END_TRUNCATED, OVERLONG, THOUGHTS_TRUNCATED, ProcessedExample

Decode = Callable[[Sequence[int]], str]
LABELS = ("prompt", "opening tag", "thought", "closing tag", "answer", "end")  # by Role
# Blue beside yellow is told apart by every kind of colour blindness; the prompt is not supervised, hence dimmed
STYLES = ("dim grey74", "bold magenta", "bright_cyan", "bold magenta", "yellow", "bold reverse")
MARKS = ("[prompt]", "[open]", "[thought]", "[close]", "[answer]", "[end]")  # where there is no colour
# Not the joiners, which are part of how emoji and some scripts are written
UNSEEN = re.compile("[\0-\x1f\x7f-\x9f\xad\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")
CHARACTER = 4  # tokens that one character can be in pieces of, a byte each
EIGHTHS = ("", "▏", "▎", "▍", "▌", "▋", "▊", "▉")


@dataclass(frozen=True)
class Row:
    """A row that was read, with what became of it."""

    position: int  # among all rows read, from 0
    outcome: ProcessedExample
    source: str
    split: str | None  # None where it was left out


class Piece(NamedTuple):
    """Tokens [start, stop) of a row: one, or the few that are a character only together."""

    start: int
    stop: int
    role: Role
    text: str


def visible(text: str) -> str:
    """The text with a mark for everything that shows nothing or would steer the terminal; a line end stays one."""
    return UNSEEN.sub(_mark, text)


def _mark(found: re.Match[str]) -> str:
    code = ord(found[0])
    return "⏎\n" if code == 10 else chr(0x2400 + code) if code < 32 else f"⟨U+{code:04X}⟩"


def pieces(outcome: ProcessedExample, decode: Decode) -> Iterator[Piece]:
    """The tokens of a row one by one, the tokens of a character that is spread over several as one."""
    ids, roles = outcome.ids.tolist(), outcome.roles.tolist()
    start = 0
    for stop in range(1, len(ids) + 1):
        text = decode(ids[start:stop])
        whole = not text.endswith("\ufffd") or stop - start == CHARACTER
        if whole or stop == len(ids) or roles[stop] != roles[start]:
            yield Piece(start, stop, Role(roles[start]), text)
            start = stop


def bars(edges: Sequence[int], counts: Sequence[int]) -> list[tuple[str, int, int]]:
    """(label, lower bound, rows) of a histogram of whole numbers, without the empty bars at both ends."""
    lower = [0, *(edge + 1 for edge in edges)]
    upper = [f"{low:,}" if low == high else f"{low:,}–{high:,}" for low, high in zip(lower, edges, strict=False)]
    labels = [*upper, f"over {edges[-1]:,}"]
    filled = [place for place, count in enumerate(counts) if count]
    span = slice(filled[0], filled[-1] + 1) if filled else slice(0)
    return list(zip(labels, lower, counts, strict=True))[span]


def figures(report: DataStats) -> dict[str, int]:
    """What became of the rows that were read."""
    kept = {f"kept for {split}": count for split, count in report.kept.items()}
    dropped = sum(report.dropped.values())
    passed = report.read - sum(report.kept.values()) - dropped
    full = {"passed over, as their split was full": passed} if passed else {}
    return {"rows read": report.read, **kept, "left out": dropped, **full}


def supervised_share(report: DataStats) -> float:
    """Of the tokens of all rows kept."""
    return sum(report.supervised_tokens.values()) / max(sum(report.tokens.values()), 1)


def suggestion(report: DataStats, max_length: int) -> str:
    """A sentence on data.max_length."""
    length = report.suggested_length()
    if length is None:
        return "No row was tokenized, so no length can be suggested."
    if length >= max_length and not {OVERLONG, THOUGHTS_TRUNCATED, END_TRUNCATED} & {*report.dropped, *report.notes}:
        return f"Every row is whole within data.max_length, {max_length:,}."
    share = next(whole for tokens, whole, _ in report.length_table() if tokens == length)
    least = "shortest of these with nine rows in ten whole" if share >= ENOUGH else "longest of these"
    return f"Suggested data.max_length: {length:,}, the {least} ({share:.0%}). It is {max_length:,} now."


def show(console: Console, rows: Sequence[Row], report: DataStats, decode: Decode, max_length: int) -> None:
    """Prints the preview: the rows as examples, then what the report counted."""
    marked = console.no_color or console.color_system is None
    console.print(legend(marked))
    for row in rows:
        console.print(Rule(Text(title(row)), align="left", style="dim"))
        # In a pipe a line ends only where the text does
        console.print(coloured(row.outcome, decode, marked), soft_wrap=not console.is_terminal)
    console.print(Rule("what became of the rows", align="left", style="dim"))
    console.print(Text(", ".join(f"{count:,} {name}" for name, count in figures(report).items()) + "\n"))
    console.print(left_out(report))
    console.print(histogram("tokens of a row", bars(TOKEN_EDGES, report.lengths), console.width, max_length))
    console.print(histogram("steps of an answer", bars(STEP_EDGES, report.steps), console.width))
    console.print(lengths(report, max_length))
    console.print(roles(report, console.width))


def title(row: Row) -> str:
    tokens = f"{row.outcome.length:,} tokens"
    return visible(f"row {row.position:,} · {row.outcome.row_id} · {row.source} · {row.split or 'left out'} · {tokens}")


def legend(marked: bool) -> Text:
    """What the colours mean; without colour, the marks."""
    parts = [Text(MARKS[role] if marked else f" {LABELS[role]} ", STYLES[role]) for role in Role]
    return Text("roles: ") + Text(" ").join(parts) + Text("   all but the prompt is supervised; ⏎ is a line end")


def coloured(outcome: ProcessedExample, decode: Decode, marked: bool) -> Text:
    """The text as the model sees it, every token in the colour of its role; `marked` names the roles instead."""
    text, start = Text(), 0
    for role, group in groupby(outcome.roles.tolist()):
        stop = start + len(list(group))
        mark = MARKS[role] if marked else ""
        text.append(mark + visible(decode(outcome.ids[start:stop].tolist())), STYLES[role])
        start = stop
    return text


def left_out(report: DataStats) -> Group:
    """Two tables: why rows were left out, and in what untidy shapes others were kept."""
    dropped = _table("left out because", "rows", "of those read", "their ids")
    for reason, count in sorted(report.dropped.items(), key=lambda item: -item[1]):
        named = ", ".join(report.dropped_ids.get(reason, [])) + (", …" if count > IDS_PER_REASON else "")
        dropped.add_row(*map(Text, (visible(reason), f"{count:,}", _percent(count, report.read), visible(named))))
    notes = _table("kept with", "rows", "of those kept")
    for note, count in sorted(report.notes.items(), key=lambda item: -item[1]):
        notes.add_row(Text(visible(note)), f"{count:,}", _percent(count, sum(report.kept.values())))
    return Group(dropped if dropped.row_count else "no row was left out", "", *([notes, ""] if notes.row_count else ()))


def histogram(name: str, found: Sequence[tuple[str, int, int]], width: int, limit: int | None = None) -> Group:
    """Bars that fit in `width` columns; those wholly above `limit` are hatched."""
    most = max((count for _, _, count in found), default=1)
    aside = max((len(label) for label, _, _ in found), default=0)
    room = max(min(width - aside - len(f"{most:,}") - 6, 60), 1)
    lines = [Text(f"{name:>{aside}}  rows", "bold")]
    for label, lower, count in found:
        over = limit is not None and lower > limit
        drawn = "░" * ceil(room * count / most) if over else _bar(count / most, room)
        lines.append(Text.assemble(f"{label:>{aside}}  ", (drawn, "dim" if over else "bright_cyan"), f" {count:,}"))
    if limit is not None and any(lower > limit for _, lower, _ in found):
        lines.append(Text(f"{'░':>{aside}}  longer than data.max_length, {limit:,}", "dim"))
    return Group(*lines, "")


def lengths(report: DataStats, max_length: int) -> Group:
    """The length table and what it suggests."""
    table = _table("tokens", "rows whole", "rows with their last closing tag")
    for length, whole, closed in report.length_table():
        table.add_row(f"{length:,}", f"{whole:.0%}", f"{closed:.0%}")
    return Group(table, Text(suggestion(report, max_length) + "\n"))


def roles(report: DataStats, width: int) -> Group:
    """Tokens of the rows kept, by role, and the share that is supervised."""
    total = sum(report.role_tokens.values())
    table = _table("role", "tokens", "share", "")
    for role in Role:
        count = report.role_tokens.get(role.name.lower(), 0)
        drawn = Text(_bar(count / max(total, 1), min(max(width - 40, 8), 40)), STYLES[role].replace(" reverse", ""))
        table.add_row(LABELS[role], f"{count:,}", _percent(count, total), drawn)
    share = f"{supervised_share(report):.1%} of {total:,} tokens are supervised"
    return Group(table, Text(share, "bold"))


def explain(console: Console, row: Row, instruction: str, response: str, decode: Decode) -> None:
    """Prints all about one row; `instruction` and `response` are what the source has."""
    outcome, marked = row.outcome, console.no_color or console.color_system is None

    def section(name: str, *contents: RenderableType) -> None:
        console.print(Rule(Text(name), align="left", style="dim"))
        for content in contents:
            console.print(content, soft_wrap=isinstance(content, Text) and not console.is_terminal)

    console.print(Text(title(row), "bold"))
    section("instruction, as the source has it", Text(visible(instruction)))
    section("response, as the source has it", Text(visible(response)))
    verdict = f"left out: {outcome.reason}" if outcome.reason else f"kept for {row.split}"
    section("what was found", *(Text(visible(line)) for line in (verdict, *outcome.notes)))
    for number, step in enumerate(outcome.thoughts, 1):
        section(f"step {number} of {len(outcome.thoughts)}", Text(visible(step), STYLES[Role.THOUGHT]))
    if outcome.answer:
        section("answer", Text(visible(outcome.answer), STYLES[Role.ANSWER]))
    if not len(outcome.ids):
        section("tokens", Text("none: the row was left out before that"))
        return
    section("text, as the model sees it", legend(marked), coloured(outcome, decode, marked))
    supervised = f"{outcome.supervised:,} of them supervised"
    section(f"{len(outcome.ids):,} tokens, {supervised}", tokens(outcome, decode))


def tokens(outcome: ProcessedExample, decode: Decode) -> Table:
    """A line for each token."""
    table = _table("", "id", "role", "supervised", "text", numbers=slice(0, 2))
    for start, stop, role, text in pieces(outcome, decode):
        for place in range(start, stop):
            shown = visible(text).replace(" ", "·").replace("⏎\n", "⏎") if place == start else "(the same character)"
            cells = (str(place), str(outcome.ids[place]), LABELS[role], "no" if role == Role.PROMPT else "yes", shown)
            table.add_row(*(Text(cell, STYLES[role]) for cell in cells))
    return table


def _table(*columns: str, numbers: slice = slice(1, 3)) -> Table:
    """A table in which the columns of `numbers` are those."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right" if column in columns[numbers] else "left")
    return table


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / max(whole, 1):.1f} %"


def _bar(share: float, width: int) -> str:
    eighths = max(round(share * width * 8), 1 if share else 0)  # few is not none
    return "█" * (eighths // 8) + EIGHTHS[eighths % 8]
