"""The content of a preview: the labels, texts and numbers that the terminal and the HTML page show.

Text of the data goes through `with_marks` before it is shown: every invisible or control character becomes a mark, so a
row cannot steer the terminal.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from datamodules.layouts.conversation import RawExample
from datamodules.prepare.stats import ENOUGH, IDS_PER_REASON, DataStats
from datamodules.text.segments import Role
from datamodules.tokens.process import END_TRUNCATED, OVERLONG, THOUGHTS_TRUNCATED, ProcessedExample
from visible import visible

Decode = Callable[[Sequence[int]], str]
ROLE_LABELS = ("prompt", "opening tag", "thought", "closing tag", "answer", "end")  # by Role
NOTHING_DROPPED = "no row was dropped"
SUPERVISED_NOTE = "all but the prompt is supervised"
LINE_END_NOTE = "⏎ is a line end"
# Column headings of the tables
DROPPED_COLUMNS = ("dropped because", "rows", "of the rows read", "their ids")
NOTE_COLUMNS = ("kept with", "rows", "of the rows kept")
LAYOUT_COLUMNS = ("source and its columns", "rows")
LENGTH_COLUMNS = ("tokens", "rows that fit", "rows whose thoughts fit")
ROLE_COLUMNS = ("role", "tokens", "ratio")
TOKENS_TITLE, STEPS_TITLE = "tokens of a row", "steps of an answer"
CHARACTER_TOKENS = 4  # the most tokens of one character: a UTF-8 character has at most 4 bytes


def source_texts(raw: RawExample) -> list[tuple[str, str]]:
    """Return each text of the source with its name, the last one the response. Of a row that could not be read these
    are all its columns as JSON."""
    if not raw.messages:
        return [("row", json.dumps(dict(raw.row), ensure_ascii=False, default=str))]
    names = {"user": "instruction", "assistant": "response", "system": "system"}
    texts: list[tuple[str, str]] = []
    for number, message in enumerate(raw.messages, 1):
        earlier = "earlier " if number < len(raw.messages) - 1 and message.role != "system" else ""
        for name, text in (("reasoning", message.reasoning), (names[message.role], message.text)):
            if name != "reasoning" or text is not None:
                texts.append((earlier + name, "" if text is None else str(text)))
    return texts


@dataclass(frozen=True)
class PreviewRow:
    """A row that was read, and the result of processing it."""

    position: int  # among all rows read, from 0
    example: ProcessedExample
    source: str
    split: str | None  # None if it was dropped

    def title(self) -> str:
        return f"row {self.position:,} · {self.example.row_id} · {self.source} · {self.split or 'dropped'}"


class TokenText(NamedTuple):
    """Tokens [start, stop) of an example and their text: one token, or the few tokens of one character."""

    start: int
    stop: int
    role: Role
    text: str


class Bar(NamedTuple):
    """One bar of a histogram."""

    label: str
    lower: int  # the smallest value that it counts
    rows: int


def with_marks(text: str) -> str:
    """The text with a mark for every control and invisible character. A line end follows its mark."""
    return visible(text, lines=True).replace("\n", "⏎\n").replace("\t", "␉")


def is_supervised(role: Role) -> bool:
    return role != Role.PROMPT


def token_texts(example: ProcessedExample, decode: Decode) -> Iterator[TokenText]:
    """The tokens of an example one by one. Several tokens of one character come together."""
    ids, roles = example.ids.tolist(), example.roles.tolist()
    start = 0
    for stop in range(1, len(ids) + 1):
        text = decode(ids[start:stop])
        complete = not text.endswith("\ufffd") or stop - start == CHARACTER_TOKENS
        if complete or stop == len(ids) or roles[stop] != roles[start]:
            yield TokenText(start, stop, Role(roles[start]), text)
            start = stop


def bars(edges: Sequence[int], counts: Sequence[int]) -> list[Bar]:
    """The bars of a histogram of integers, without empty bars at both ends.

    edges: the largest value of each bar but the last. counts: the rows of each bar, one more than edges.
    """
    lower = [0, *(edge + 1 for edge in edges)]
    ranges = [f"{low:,}" if low == high else f"{low:,}–{high:,}" for low, high in zip(lower, edges, strict=False)]
    labels = [*ranges, f"over {edges[-1]:,}"]
    filled = [place for place, count in enumerate(counts) if count]
    span = slice(filled[0], filled[-1] + 1) if filled else slice(0)
    return [Bar(*bar) for bar in zip(labels[span], lower[span], counts[span], strict=True)]


def row_counts(stats: DataStats) -> dict[str, int]:
    """Label -> number of rows, for every result of reading a row."""
    kept = {f"kept for {split}": count for split, count in stats.kept.items()}
    not_used = stats.read - sum(stats.kept.values()) - stats.dropped_rows
    full = {"not used, because their split was full": not_used} if not_used else {}
    return {"rows read": stats.read, **kept, "dropped": stats.dropped_rows, **full}


def layout_table(stats: DataStats) -> list[tuple[str, str]]:
    """The cells of LAYOUT_COLUMNS: of each source the columns that were read, and the other columns."""
    return [(with_marks(words), f"{count:,}") for words, count in stats.layout_lines()]


def reading_lines(stats: DataStats) -> list[str]:
    """A line for each source: which files were read, and in which order; `with_marks` has been applied."""
    return [with_marks(f"{name}: {words}") for name, words in stats.reading.items()]


def dropped_table(stats: DataStats) -> list[tuple[str, str, str, str]]:
    """The cells of DROPPED_COLUMNS, the most frequent reason first; `with_marks` has been applied."""
    table = []
    for reason, count in sorted(stats.dropped.items(), key=lambda item: -item[1]):
        ids = ", ".join(stats.dropped_ids.get(reason, [])) + (", …" if count > IDS_PER_REASON else "")
        table.append((with_marks(reason), f"{count:,}", percent(count, stats.read), with_marks(ids)))
    return table


def note_table(stats: DataStats) -> list[tuple[str, str, str]]:
    """The cells of NOTE_COLUMNS: malformed responses that were kept, the most frequent kind first."""
    kept = sum(stats.kept.values())
    notes = sorted(stats.notes.items(), key=lambda item: -item[1])
    return [(with_marks(note), f"{count:,}", percent(count, kept)) for note, count in notes]


def role_table(stats: DataStats) -> list[tuple[Role, int, float]]:
    """(role, tokens of the rows kept, their ratio to all tokens)."""
    total = max(sum(stats.role_tokens.values()), 1)
    counts = [(role, stats.role_tokens.get(role.name.lower(), 0)) for role in Role]
    return [(role, count, count / total) for role, count in counts]


def supervised_ratio(stats: DataStats) -> float:
    """The ratio of supervised tokens to all tokens of the rows kept."""
    return sum(stats.supervised_tokens.values()) / max(sum(stats.tokens.values()), 1)


def suggestion(stats: DataStats, max_length: int) -> str:
    """One sentence about data.max_length."""
    length = stats.suggested_length()
    if length is None:
        return "No row was tokenized, so no length can be suggested."
    if length >= max_length and not {OVERLONG, THOUGHTS_TRUNCATED, END_TRUNCATED} & {*stats.dropped, *stats.notes}:
        return f"Every row fits into data.max_length, {max_length:,}."
    ratio = next(fitting for tokens, fitting, _ in stats.length_table() if tokens == length)
    choice = "shortest of these into which nine rows in ten fit" if ratio >= ENOUGH else "longest of these"
    return f"Suggested data.max_length: {length:,}, the {choice} ({ratio:.0%}). It is {max_length:,} now."


def percent(part: float, whole: float) -> str:
    return f"{part / max(whole, 1):.1%}"
