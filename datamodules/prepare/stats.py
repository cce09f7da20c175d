"""What became of the rows that were read: the counts that a user should see before training on what is left."""

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from datamodules.text.segments import Role
from datamodules.tokens.process import CUT, OVERLONG, SHORTENED, ProcessedExample

LENGTHS = (512, 1024, 2048, 4096, 8192)  # of the length table, in tokens
ENOUGH = 0.9  # share of whole rows that a suggested length keeps
NAMED = 5  # rows named for each reason why rows were left out
# Upper edges of the bars of the two histograms; one more bar holds what is above the last
TOKEN_EDGES = (64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192, 12288, 16384)
STEP_EDGES = (0, 1, 2, 3, 5, 8, 12, 20, 30, 50, 80, 120, 200, 500)


def _bars(edges: tuple[int, ...]) -> list[int]:
    return [0] * (len(edges) + 1)


@dataclass
class Report:
    """All in rows unless a name says tokens. Plain numbers, so that it is kept as JSON."""

    read: int = 0
    kept: dict[str, int] = field(default_factory=dict)  # by split, as are the two after it
    tokens: dict[str, int] = field(default_factory=dict)
    supervised_tokens: dict[str, int] = field(default_factory=dict)
    by_source: dict[str, int] = field(default_factory=dict)  # of those kept
    notes: dict[str, int] = field(default_factory=dict)  # untidy shapes among those kept, and what was done about them
    dropped: dict[str, int] = field(default_factory=dict)  # by reason
    dropped_ids: dict[str, list[str]] = field(default_factory=dict)  # the first few of them
    tokenized: int = 0  # rows whose length is known: the table and the histograms are of these
    thinking: int = 0  # of those, rows with a think block
    whole: dict[str, int] = field(default_factory=dict)  # of those tokenized, by LENGTHS
    closed: dict[str, int] = field(default_factory=dict)  # of those thinking, that have their last closing tag within
    lengths: list[int] = field(default_factory=lambda: _bars(TOKEN_EDGES))
    steps: list[int] = field(default_factory=lambda: _bars(STEP_EDGES))
    role_tokens: dict[str, int] = field(default_factory=dict)  # of rows kept, by the role's name
    digests: dict[str, str] = field(default_factory=dict)  # of the ids and roles of a split's rows, in their order

    def measure(self, outcome: ProcessedExample) -> None:
        """Counts a row whose length is known, kept or not, as it was before anything was cut."""
        self.tokenized += 1
        self.lengths[bisect_left(TOKEN_EDGES, outcome.length)] += 1
        self.steps[bisect_left(STEP_EDGES, outcome.steps)] += 1
        self.thinking += outcome.closes_at > 0
        for length in LENGTHS:
            _count(self.whole, str(length), outcome.length <= length)
            _count(self.closed, str(length), 0 < outcome.closes_at <= length)

    def drop(self, reason: str, row_id: str) -> None:
        _count(self.dropped, reason)
        if len(named := self.dropped_ids.setdefault(reason, [])) < NAMED:
            named.append(row_id)

    def keep(self, outcome: ProcessedExample, split: str, source: str) -> None:
        for note in outcome.notes:
            _count(self.notes, note)
        _count(self.by_source, source)
        _count(self.kept, split)
        _count(self.tokens, split, len(outcome.ids))
        _count(self.supervised_tokens, split, outcome.supervised)
        for role, tokens in zip(Role, np.bincount(outcome.roles, minlength=len(Role)).tolist(), strict=True):
            _count(self.role_tokens, role.name.lower(), tokens)

    def length_table(self) -> Iterator[tuple[int, float, float]]:
        """(tokens, share of rows that are whole within them, share of thinking rows whose last tag is closed)."""
        for length in LENGTHS:
            whole, closed = self.whole.get(str(length), 0), self.closed.get(str(length), 0)
            yield length, whole / max(self.tokenized, 1), closed / max(self.thinking, 1)

    def suggested_length(self) -> int | None:
        """The shortest length of the table within which nine rows in ten are whole, else the longest."""
        if not self.tokenized:
            return None
        return next((length for length, whole, _ in self.length_table() if whole >= ENOUGH), LENGTHS[-1])

    def lines(self, max_length: int) -> list[str]:
        """What a user should know before training on it."""
        kept = ", ".join(f"{rows:,} {split}" for split, rows in self.kept.items())
        lines = [f"data: {self.read:,} rows read, kept {kept}; left out {sum(self.dropped.values()):,}"]
        if len(self.by_source) > 1:
            lines.append(f"  from {', '.join(f'{name} {rows:,}' for name, rows in self.by_source.items())}")
        for reason, count in sorted(self.dropped.items(), key=lambda item: -item[1]):
            named = ", ".join(self.dropped_ids.get(reason, []))
            lines.append(f"  left out {count:,}: {reason} ({named}{', …' if count > NAMED else ''})")
        lines += [f"  kept {count:,} with {note}" for note, count in sorted(self.notes.items())]
        lines.append(f"  {'tokens':<30}" + "".join(f"{length:>8,}" for length, _, _ in self.length_table()))
        for title, column in (("rows whole", 1), ("thinking rows with their end", 2)):
            lines.append(f"  {title:<30}" + "".join(f"{100 * row[column]:>7.0f}%" for row in self.length_table()))
        suggested = self.suggested_length()
        overlong = OVERLONG in self.dropped or CUT in self.notes or SHORTENED in self.notes
        if overlong and suggested and suggested > max_length:
            lines.append(f"  data.max_length is {max_length:,}; {suggested:,} would suit these rows")
        return lines


def _count(counts: dict[str, int], name: str, by: int = 1) -> None:
    counts[name] = counts.get(name, 0) + by
