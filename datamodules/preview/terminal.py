"""The preview in a terminal, printed by rich. Functions from processed rows and a DataStats to rich's renderables.

Text of the data is printed as rich Text, never as markup, after `with_marks`: brackets of a row are shown unchanged,
and escape codes as marks.
"""

from collections.abc import Sequence
from itertools import groupby
from math import ceil

from rich import box
from rich.console import Console, Group, RenderableType
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from datamodules.prepare.stats import STEP_EDGES, TOKEN_EDGES, DataStats
from datamodules.preview import content
from datamodules.preview.content import (
    Bar,
    Decode,
    PreviewRow,
    bars,
    dropped_table,
    is_supervised,
    layout_table,
    note_table,
    reading_lines,
    role_table,
    row_counts,
    suggestion,
    supervised_ratio,
    token_texts,
    with_marks,
)
from datamodules.text.segments import Role
from datamodules.tokens.process import ProcessedExample

# By Role. Blue and yellow differ for every kind of colour blindness; the prompt is dimmed because it is not supervised
ROLE_STYLES = ("dim grey74", "bold magenta", "bright_cyan", "bold magenta", "yellow", "bold reverse")
ROLE_MARKS = ("[prompt]", "[open]", "[thought]", "[close]", "[answer]", "[end]")  # in place of colours
EIGHTHS = ("", "▏", "▎", "▍", "▌", "▋", "▊", "▉")


def print_preview(
    console: Console, rows: Sequence[PreviewRow], stats: DataStats, decode: Decode, max_length: int
) -> None:
    """Print the rows as examples, then the counts of the stats."""
    marked = without_colour(console)
    console.print(legend(marked))
    for row in rows:
        console.print(Rule(Text(title(row)), align="left", style="dim"))
        # In a pipe every line end is one of the text
        console.print(coloured(row.example, decode, marked), soft_wrap=not console.is_terminal)
    console.print(Rule("all rows read", align="left", style="dim"))
    console.print(Text(", ".join(f"{count:,} {label}" for label, count in row_counts(stats).items()) + "\n"))
    for line in reading_lines(stats):
        console.print(Text(line))
    console.print(dropped_and_notes(stats))
    console.print(histogram(content.TOKENS_TITLE, bars(TOKEN_EDGES, stats.lengths), console.width, max_length))
    console.print(histogram(content.STEPS_TITLE, bars(STEP_EDGES, stats.steps), console.width))
    console.print(lengths(stats, max_length))
    console.print(roles(stats, console.width))


def without_colour(console: Console) -> bool:
    return console.no_color or console.color_system is None


def title(row: PreviewRow) -> str:
    return with_marks(f"{row.title()} · {row.example.length:,} tokens")


def legend(marked: bool) -> Text:
    """The meaning of the colours, or the marks in their place."""
    parts = [Text(ROLE_MARKS[role] if marked else f" {content.ROLE_LABELS[role]} ", ROLE_STYLES[role]) for role in Role]
    return Text("roles: ") + Text(" ").join(parts) + Text(f"   {content.SUPERVISED_NOTE}; {content.LINE_END_NOTE}")


def coloured(example: ProcessedExample, decode: Decode, marked: bool) -> Text:
    """The text as the model sees it, every token in the colour of its role. With `marked` the roles are named."""
    text, start = Text(), 0
    for role, group in groupby(example.roles.tolist()):
        stop = start + len(list(group))
        mark = ROLE_MARKS[role] if marked else ""
        text.append(mark + with_marks(decode(example.ids[start:stop].tolist())), ROLE_STYLES[role])
        start = stop
    return text


def dropped_and_notes(stats: DataStats) -> Group:
    """Tables: the columns of the sources, the reasons for dropped rows, the malformed responses that were kept."""
    layouts = _table(*content.LAYOUT_COLUMNS)
    dropped, notes = _table(*content.DROPPED_COLUMNS), _table(*content.NOTE_COLUMNS)
    tables = (layouts, layout_table(stats)), (dropped, dropped_table(stats)), (notes, note_table(stats))
    for table, lines in tables:
        for cells in lines:
            table.add_row(*map(Text, cells))
    return Group(
        layouts,
        "",
        dropped if dropped.row_count else content.NOTHING_DROPPED,
        *([stats.overlap] if stats.overlap else ()),
        "",
        *([notes, ""] if notes.row_count else ()),
    )


def histogram(name: str, found: Sequence[Bar], width: int, limit: int | None = None) -> Group:
    """Bars within `width` columns. A bar is hatched if all its values are above `limit`."""
    most = max((bar.rows for bar in found), default=1)
    label_width = max((len(bar.label) for bar in found), default=0)
    space = max(min(width - label_width - len(f"{most:,}") - 6, 60), 1)
    lines = [Text(f"{name:>{label_width}}  rows", "bold")]
    for label, lower, rows in found:
        over = limit is not None and lower > limit
        drawn = "░" * ceil(space * rows / most) if over else _bar(rows / most, space)
        lines.append(
            Text.assemble(f"{label:>{label_width}}  ", (drawn, "dim" if over else "bright_cyan"), f" {rows:,}")
        )
    if limit is not None and any(bar.lower > limit for bar in found):
        lines.append(Text(f"{'░':>{label_width}}  longer than data.max_length, {limit:,}", "dim"))
    return Group(*lines, "")


def lengths(stats: DataStats, max_length: int) -> Group:
    """The rows that fit into several lengths, and the suggested length."""
    table = _table(*content.LENGTH_COLUMNS)
    for length, fitting, closed in stats.length_table():
        table.add_row(f"{length:,}", f"{fitting:.0%}", f"{closed:.0%}")
    return Group(table, Text(suggestion(stats, max_length) + "\n"))


def roles(stats: DataStats, width: int) -> Group:
    """The tokens of the rows kept, by role, and the ratio of supervised tokens."""
    table = _table(*content.ROLE_COLUMNS, "")
    for role, count, ratio in role_table(stats):
        drawn = Text(_bar(ratio, min(max(width - 40, 8), 40)), ROLE_STYLES[role].replace(" reverse", ""))
        table.add_row(content.ROLE_LABELS[role], f"{count:,}", f"{ratio:.1%}", drawn)
    total = sum(stats.role_tokens.values())
    return Group(table, Text(f"{supervised_ratio(stats):.1%} of {total:,} tokens are supervised", "bold"))


def print_row(console: Console, row: PreviewRow, texts: Sequence[tuple[str, str]], decode: Decode) -> None:
    """Print everything about one row. `texts` are the unchanged texts of the source with their names."""
    example, marked = row.example, without_colour(console)

    def section(name: str, *parts: RenderableType) -> None:
        console.print(Rule(Text(name), align="left", style="dim"))
        for part in parts:
            console.print(part, soft_wrap=isinstance(part, Text) and not console.is_terminal)

    console.print(Text(title(row), "bold"))
    for name, text in texts:
        section(f"{name} of the source", Text(with_marks(text)))
    verdict = f"dropped: {example.reason}" if example.reason else f"kept for {row.split}"
    section("result", *(Text(with_marks(line)) for line in (verdict, *example.notes)))
    for number, step in enumerate(example.thoughts, 1):
        section(f"step {number} of {len(example.thoughts)}", Text(with_marks(step), ROLE_STYLES[Role.THOUGHT]))
    if example.answer:
        section("answer", Text(with_marks(example.answer), ROLE_STYLES[Role.ANSWER]))
    if not len(example.ids):
        section("tokens", Text("none: the row was dropped before it was tokenized"))
        return
    section("text as the model sees it", legend(marked), coloured(example, decode, marked))
    supervised = f"{example.supervised:,} of them supervised"
    section(f"{len(example.ids):,} tokens, {supervised}", tokens(example, decode))


def tokens(example: ProcessedExample, decode: Decode) -> Table:
    """One table line for each token."""
    table = _table("", "id", "role", "supervised", "text", numbers=slice(0, 2))
    for start, stop, role, text in token_texts(example, decode):
        for place in range(start, stop):
            shown = with_marks(text).replace(" ", "·").replace("⏎\n", "⏎") if place == start else "(the same character)"
            supervised = "yes" if is_supervised(role) else "no"
            cells = (str(place), str(example.ids[place]), content.ROLE_LABELS[role], supervised, shown)
            table.add_row(*(Text(cell, ROLE_STYLES[role]) for cell in cells))
    return table


def _table(*columns: str, numbers: slice = slice(1, 3)) -> Table:
    """A table whose columns `numbers` are aligned to the right."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right" if column in columns[numbers] else "left")
    return table


def _bar(ratio: float, width: int) -> str:
    eighths = max(round(ratio * width * 8), 1 if ratio else 0)  # a small number is still visible
    return "█" * (eighths // 8) + EIGHTHS[eighths % 8]
