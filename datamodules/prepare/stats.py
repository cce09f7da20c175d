"""DataStats: counts of the rows read, kept and dropped, with reasons. A user sees them before training."""

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from datamodules.text.segments import Role
from datamodules.tokens.process import END_TRUNCATED, OVERLONG, THOUGHTS_TRUNCATED, ProcessedExample

LENGTHS = (512, 1024, 2048, 4096, 8192)  # of the length table, in tokens
ENOUGH = 0.9  # ratio of rows that fit into a suggested length
LAYOUTS = 20  # counted by name
FILES_PER_LAYOUT = 5  # named
IDS_PER_REASON = 5  # dropped rows named for each reason
# Upper edges of the bars of the two histograms; one more bar counts the values above the last edge
TOKEN_EDGES = (64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192, 12288, 16384)
STEP_EDGES = (0, 1, 2, 3, 5, 8, 12, 20, 30, 50, 80, 120, 200, 500)


def _bars(edges: tuple[int, ...]) -> list[int]:
    return [0] * (len(edges) + 1)


@dataclass
class DataStats:
    """Counts of rows, or of tokens if the name contains `tokens`. Plain numbers and texts, stored as stats.json."""

    read: int = 0
    kept: dict[str, int] = field(default_factory=dict)  # by split, as the next two
    tokens: dict[str, int] = field(default_factory=dict)
    supervised_tokens: dict[str, int] = field(default_factory=dict)
    by_source: dict[str, int] = field(default_factory=dict)  # kept rows
    reading: dict[str, str] = field(default_factory=dict)  # by source: its files, and the order of its rows, in words
    layouts: dict[str, int] = field(default_factory=dict)  # rows by source and the layout that was found
    layout_files: dict[str, list[str]] = field(default_factory=dict)  # the first files of each, if there are several
    notes: dict[str, int] = field(default_factory=dict)  # kept rows with a malformed shape or truncation
    dropped_rows: int = 0
    dropped: dict[str, int] = field(default_factory=dict)  # by reason; a row with several counts for each of them
    dropped_ids: dict[str, list[str]] = field(default_factory=dict)  # the first few ids, by reason
    tokenized: int = 0  # rows with a known length; the table and the histograms count these
    thinking: int = 0  # tokenized rows with a think block
    whole: dict[str, int] = field(default_factory=dict)  # tokenized rows of at most each of LENGTHS
    closed: dict[str, int] = field(
        default_factory=dict
    )  # thinking rows with the last closing tag within each of LENGTHS
    lengths: list[int] = field(default_factory=lambda: _bars(TOKEN_EDGES))
    steps: list[int] = field(default_factory=lambda: _bars(STEP_EDGES))
    role_tokens: dict[str, int] = field(default_factory=dict)  # of kept rows, by name of the role
    digests: dict[str, str] = field(default_factory=dict)  # by split, of the ids and roles of its rows in order

    def measure(self, example: ProcessedExample) -> None:
        """Count the sizes of a tokenized row, kept or dropped, before truncation."""
        self.tokenized += 1
        self.lengths[bisect_left(TOKEN_EDGES, example.length)] += 1
        self.steps[bisect_left(STEP_EDGES, example.steps)] += 1
        self.thinking += example.closes_at > 0
        for length in LENGTHS:
            _count(self.whole, str(length), example.length <= length)
            _count(self.closed, str(length), 0 < example.closes_at <= length)

    def name_file(self, layout: str, file: str) -> None:
        """Remember the name of a file in which rows have this layout; of many files only the first."""
        if layout not in self.layout_files and len(self.layout_files) >= LAYOUTS:
            return
        names = self.layout_files.setdefault(layout, [])
        if len(names) < FILES_PER_LAYOUT:
            names.append(file)
        elif names[-1] != "…":
            names.append("…")

    def layout_lines(self) -> list[tuple[str, int]]:
        """Return the sources with their layouts and files, in words, and the number of rows."""
        files = {layout: f" ({', '.join(names)})" for layout, names in self.layout_files.items()}
        return [(layout + files.get(layout, ""), count) for layout, count in self.layouts.items()]

    def count_layout(self, words: str) -> None:
        """Count a row under its source and layout."""
        _count(self.layouts, words if words in self.layouts or len(self.layouts) < LAYOUTS else "further layouts")

    def drop(self, example: ProcessedExample) -> None:
        """Count a dropped row, under each of its reasons."""
        self.dropped_rows += 1
        for reason in example.reasons:
            _count(self.dropped, reason)
            if len(named := self.dropped_ids.setdefault(reason, [])) < IDS_PER_REASON:
                named.append(example.row_id)

    @property
    def overlap(self) -> str:
        """A sentence for the lines of the reasons, if a row has several of them; empty otherwise."""
        several = sum(self.dropped.values()) > self.dropped_rows
        return "a row with several reasons is counted under each of them" if several else ""

    def keep(self, example: ProcessedExample, split: str, source: str) -> None:
        """Count a kept row."""
        for note in example.notes:
            _count(self.notes, note)
        _count(self.by_source, source)
        _count(self.kept, split)
        _count(self.tokens, split, len(example.ids))
        _count(self.supervised_tokens, split, example.supervised)
        for role, tokens in zip(Role, np.bincount(example.roles, minlength=len(Role)).tolist(), strict=True):
            _count(self.role_tokens, role.name.lower(), tokens)

    def length_table(self) -> Iterator[tuple[int, float, float]]:
        """Yield (tokens, ratio of rows that fit, ratio of thinking rows whose last closing tag fits)."""
        for length in LENGTHS:
            whole, closed = self.whole.get(str(length), 0), self.closed.get(str(length), 0)
            yield length, whole / max(self.tokenized, 1), closed / max(self.thinking, 1)

    def suggested_length(self) -> int | None:
        """Return the shortest length of the table that fits nine rows in ten, else the longest; None without rows."""
        if not self.tokenized:
            return None
        return next((length for length, whole, _ in self.length_table() if whole >= ENOUGH), LENGTHS[-1])

    def lines(self, max_length: int) -> list[str]:
        """Return the lines for the user: counts, reasons with ids, notes, the table of lengths."""
        kept = ", ".join(f"{rows:,} {split}" for split, rows in self.kept.items())
        lines = [f"data: {self.read:,} rows read, kept {kept}; dropped {self.dropped_rows:,}"]
        if len(self.by_source) > 1:
            lines.append(f"  from {', '.join(f'{name} {rows:,}' for name, rows in self.by_source.items())}")
        lines += [f"  {name}: {words}" for name, words in self.reading.items()]
        lines += [f"  read {count:,} of {words}" for words, count in self.layout_lines()]
        for reason, count in sorted(self.dropped.items(), key=lambda item: -item[1]):
            named = ", ".join(self.dropped_ids.get(reason, []))
            lines.append(f"  dropped {count:,}: {reason} ({named}{', …' if count > IDS_PER_REASON else ''})")
        lines += [f"  {self.overlap}"] if self.overlap else []
        lines += [f"  kept {count:,} with {note}" for note, count in sorted(self.notes.items())]
        lines.append(f"  {'tokens':<30}" + "".join(f"{length:>8,}" for length, _, _ in self.length_table()))
        for title, column in (("rows that fit", 1), ("rows whose thoughts fit", 2)):
            lines.append(f"  {title:<30}" + "".join(f"{100 * entry[column]:>7.0f}%" for entry in self.length_table()))
        suggested = self.suggested_length()
        overlong = OVERLONG in self.dropped or {THOUGHTS_TRUNCATED, END_TRUNCATED} & {*self.notes}
        if overlong and suggested and suggested > max_length:
            lines.append(f"  data.max_length is {max_length:,}; {suggested:,} would suit these rows")
        return lines


def _count(counts: dict[str, int], name: str, by: int = 1) -> None:
    counts[name] = counts.get(name, 0) + by
