"""Dropped rows in a terminal: their texts, with a mark at each place for which a row was dropped.

▶1 closing tag without an opening one (data.malformed_overrides.lone_close)
<think>a</think>4▶1</think>!
"""

from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.rule import Rule
from rich.text import Text

from datamodules.preview.content import PreviewRow, source_texts, with_marks
from datamodules.preview.terminal import title
from datamodules.text.malformed import Fault

NEAR = 600  # characters that are shown before and after each mark, and at both ends of a text
MARK = "bold reverse"


def has_reason(row: PreviewRow, wanted: str) -> bool:
    """Whether a row was dropped for a reason with `wanted` in it: the name of a shape or a few words; "" is in each."""
    return any(wanted.lower() in reason.lower() for reason in row.example.reasons)


def print_dropped(console: Console, rows: Sequence[PreviewRow]) -> None:
    """Print each row with its reasons and the texts of its source. Of long texts the ends and the places are
    shown; `preview --row` shows them whole."""
    for row in rows:
        raw, faults = row.example.raw, row.example.faults
        assert raw is not None  # the examples of the preview have their texts
        console.print(Rule(Text(title(row)), align="left", style="dim"))
        for number, (reason, at) in enumerate(faults, 1):
            console.print(
                Text.assemble((f"▶{number} " if at is not None else "", MARK), f"dropped: {with_marks(reason)}")
            )
        texts = source_texts(raw)
        for number, (name, text) in enumerate(texts, 1):
            console.print(Text(name, "dim"))
            console.print(marked(text, faults if number == len(texts) else ()), soft_wrap=not console.is_terminal)


def marked(text: str, faults: Sequence[Fault] = ()) -> Text:
    """The text with a mark before the place of each fault. Characters that are far from all places are counted only."""
    places = [(min(at, len(text)), number) for number, (_, at) in enumerate(faults, 1) if at is not None]
    shown, before = Text(), 0
    for start, stop in _near(sorted({0, len(text), *(at for at, _ in places)}), len(text)):
        if start > before:
            shown.append(f"⋯ {start - before:,} characters ⋯", "dim")
        at = start
        for place, number in sorted(one for one in places if start <= one[0] <= stop):
            shown.append(with_marks(text[at:place])).append(f"▶{number}", MARK)
            at = place
        shown.append(with_marks(text[at:stop]))
        before = stop
    return shown


def _near(places: Sequence[int], length: int) -> Iterator[tuple[int, int]]:
    """Yield (start, stop) of the parts of a text that are near one of the places, which are in order."""
    start, stop = 0, 0
    for place in places:
        if place - NEAR > stop:
            yield start, stop
            start = place - NEAR
        stop = min(place + NEAR, length)
    yield start, stop
