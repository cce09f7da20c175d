"""Rows of a source, read into RawExamples: here and nowhere else.

The layout of a row is found by the names of its columns, once for each set of names. So files with different columns
may be in one source, and a row without a value in the first layout may have one in the next.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from datamodules.layouts.columns import GROUP, MEDIA, ROW_IDS, Candidates, Columns, plain
from datamodules.layouts.conversation import RawExample
from datamodules.layouts.layout import Layout, Messages, Texts, layouts_of, reasoning_columns
from datamodules.layouts.messages import NoConversation
from errors import UserError, in_line
from visible import SURROGATES

NAMES_SHOWN = 12  # columns that a line names
TRUE = {True, "true", "correct", "yes", "1"}  # 1 and 1.0 equal True
NOTHING: tuple[object, ...] = ("", b"", [], {}, [None])
MOST_FOUND = 1_024  # sets of column names that are remembered: each row of a file of JSON may have its own
NO_LAYOUT = "no columns of a known layout"
NOT_TEXTS = "instruction or response is not a text"


class Found(NamedTuple):
    """The layouts of one set of column names, and the first one in words."""

    layouts: list[Layout]
    words: str
    several: list[str]  # columns that look like reasoning, if there are more than one
    media: list[str]  # columns of images, videos and sounds

    def check(self, row: Mapping[str, Any]) -> None:
        """Raise NoConversation for a row that would lose something, or that has no layout."""
        if self.several:
            raise NoConversation(f"reasoning in several columns: {in_line(self.several, NAMES_SHOWN)}")
        if not self.layouts:
            raise NoConversation(NO_LAYOUT)
        if seen := next((name for name in self.media if row[name] is not None and row[name] not in NOTHING), None):
            raise NoConversation(f"a value in the column {seen} (data.columns.ignore leaves it out)")


class RowReader:
    """Reads the rows of one source."""

    def __init__(self, columns: Columns, candidates: Candidates = Candidates()) -> None:  # noqa: B008 (never changed)
        self.columns, self.candidates = columns, candidates
        self._found: dict[tuple[str, ...], Found] = {}

    def read(self, row: Mapping[str, Any], place: object) -> list[RawExample]:
        """Return the examples of a row: one, or one for each candidate that is kept.

        A row that cannot be read gives one with a problem. A row without an id is named by str() of its place.
        """
        found = self.found(self._read_names(row))
        ids = (row.get(column) for column in ROW_IDS)
        row_id = next((_encodable(str(value)) for value in ids if value not in (None, "")), None)
        row_id = _encodable(str(place)) if row_id is None else row_id  # only now, because it may read the file
        group = row.get(GROUP)
        group = "all" if group in (None, "") else _encodable(str(group))
        try:
            if self.candidates.column is not None:
                return [
                    RawExample(row, f"{row_id}/{k}", group, messages, "", notes, found.words)
                    for k, (messages, notes) in self._candidates(row, found)
                ]
            messages, notes = self._messages(row, found)
        except NoConversation as problem:
            return [RawExample(row, row_id, group, (), str(problem), (), found.words)]
        return [RawExample(row, row_id, group, messages, "", notes, found.words)]

    def found(self, names: tuple[str, ...]) -> Found:
        """Return the layouts of a row with these columns."""
        known = self._found.get(names)
        if known is None:
            if len(self._found) >= MOST_FOUND:
                self._found.clear()
            known = self._found[names] = self._find(names)
        return known

    def check(self, rows: Sequence[Mapping[str, Any]], place: str | None = None) -> None:
        """Raise UserError if no one of the first rows of a source, or of a file (`place`), has a layout, or if one has
        reasoning that would not be read."""
        for names in dict.fromkeys(map(tuple, rows)):
            several = self.found(names).several
            full = [name for name in several if any(isinstance(row.get(name), str) and row[name] for row in rows)]
            if len(full) > 1:
                fix = "set data.columns.reasoning to one of them, or list those to leave out in data.columns.ignore"
                raise UserError("data.columns.reasoning", ", ".join(full), "look like reasoning, and one is read", fix)
        names = tuple(dict.fromkeys(name for row in rows for name in row))
        for name in ("system", "input"):
            given = getattr(self.columns, name)
            if rows and place is None and given is not None and given not in names:
                problem = f"is not among the columns of the first rows: {in_line(names, NAMES_SHOWN)}"
                raise UserError(f"data.columns.{name}", given, problem, "give another column, or null")
        if rows and not any(self.found(tuple(row)).layouts for row in rows):
            missing = [one for one in vars(self.columns).values() if isinstance(one, str) and one not in names]
            named = f"; it lacks {', '.join(missing)}" if missing else ""
            where = "the data" if place is None else place
            problem = f"has the columns {in_line(names, NAMES_SHOWN)}, which are no layout of a conversation{named}"
            fix = "set data.columns.messages, or data.columns.instruction and data.columns.response"
            raise UserError("data.columns", where, problem, fix)

    def _read_names(self, row: Mapping[str, Any]) -> tuple[str, ...]:
        """The columns of a row. If several look like reasoning, those of them without a text or a list are left out."""
        names = tuple(row)
        found = self.found(names)
        if not found.several:
            return names
        return tuple(name for name in names if name not in found.several or _may_be_reasoning(row[name]))

    def _find(self, names: tuple[str, ...]) -> Found:
        columns = self.columns
        if self.candidates.column is not None:
            columns = replace(columns, response=self.candidates.column)
        several = reasoning_columns(names, columns) if columns.reasoning is None else []
        if len(several) < 2:
            several = []
        media = [name for name in names if plain(name) in MEDIA and name not in columns.ignore]
        layouts = layouts_of(names, columns)
        if self.candidates.column is not None:
            layouts = [one for one in layouts if isinstance(one, Texts)]
        if not layouts:
            return Found([], f"no layout in the columns {in_line(names, NAMES_SHOWN)}", several, media)
        usual = {*layouts[0].used(), *ROW_IDS, GROUP}
        others = [name for name in names if name not in usual]
        why = (
            "found by name" if self.columns == Columns() and self.candidates.column is None else "named by data.columns"
        )
        words = f"{layouts[0].words()} ({why})" + (f"; not read: {in_line(others, NAMES_SHOWN)}" if others else "")
        return Found(layouts, words, several, media)

    def _messages(self, row: Mapping[str, Any], found: Found) -> Messages:
        found.check(row)
        for layout in found.layouts:
            if (messages := layout.read(row)) is not None:
                return messages
        raise NoConversation(NOT_TEXTS if isinstance(found.layouts[0], Texts) else "a conversation without messages")

    def _candidates(self, row: Mapping[str, Any], found: Found) -> list[tuple[int, Messages]]:
        """The number from 1 and the messages, with notes, of each candidate that is kept."""
        found.check(row)
        texts, verdicts = _list(row.get(str(self.candidates.column))), None
        layout = found.layouts[0]
        assert isinstance(layout, Texts)
        if not isinstance(texts, list) or not texts:
            raise NoConversation("no candidates")
        if self.candidates.verdicts is not None:
            verdicts = _list(row.get(self.candidates.verdicts))
            if not isinstance(verdicts, list) or len(verdicts) != len(texts):
                raise NoConversation("another number of verdicts than of candidates")
        kept: list[tuple[int, Messages]] = []
        for k, text in enumerate(texts):
            verdict = verdicts[k] if verdicts is not None else True
            verdict = verdict.strip().lower() if isinstance(verdict, str) else verdict
            if len(kept) == self.candidates.keep or not (isinstance(verdict, int | float | str) and verdict in TRUE):
                continue
            read = layout.read({**row, layout.response: text})
            if read is not None:
                kept.append((k + 1, read))
        if not kept:
            raise NoConversation("no candidate is a text" if verdicts is None else "no candidate with a true verdict")
        return kept


def _list(value: Any) -> Any:
    """The value, or the list that it holds as JSON text."""
    try:
        return json.loads(value) if isinstance(value, str) and value.lstrip().startswith("[") else value
    except (ValueError, RecursionError):
        return value


def _may_be_reasoning(value: Any) -> bool:
    """Whether a value is no flag, number or empty text. A list is refused later, by name."""
    return bool(value.strip() if isinstance(value, str) else isinstance(value, list | Mapping) and value)


def _encodable(name: str) -> str:
    """The name with U+FFFD for each surrogate, which UTF-8 cannot encode."""
    return SURROGATES.sub("\ufffd", name)
