"""A response as its author wrote it, taken apart into thoughts and the text around them, without losing a character.

    "<think>\\nA. B.\\n</think>\\n\\nx = 7"  ->  Span("\\nA. B.\\n", thought), Span("\\n\\nx = 7", text)

Real answers are untidy. Each shape of untidiness has a name, a policy (keep, repair or drop) and a count.
"""

import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

from datamodules.text.malformed import MalformedPolicy, MalformedResponse, Shapes
from errors import UserError

WINDOW = 8_192  # bytes of UTF-8; a stretch that says one thing over and over packs into next to nothing
PACKED = 0.08  # of it, where a passage of up to 800 characters repeats; 1,501 real R1 answers do not go below 0.17
# What may open or close code: a fence at the beginning of a line, bare if nothing follows, or backticks within one
MARK = re.compile(r"^[ \t]*(?P<fence>`{3,}|~{3,})(?P<bare>[ \t\r]*$)?|`+", re.MULTILINE)
SEPARATORS = "\u2028\u2029\x85"  # line ends that editors, jsonl readers and models disagree about
SURROGATES = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Tags:
    """What opens and closes a thought."""

    open: str = "<think>"
    """Opens a thought."""
    close: str = "</think>"
    """Closes it."""

    def check(self, key: str) -> None:
        """Raises UserError under `key` for a pair that cannot be told apart."""
        if not self.open.strip() or not self.close.strip() or self.open in self.close or self.close in self.open:
            pair = f"{self.open} {self.close}"
            raise UserError(key, pair, "is not two different tags", "give a pair like <think> and </think>")


class Span(NamedTuple):
    text: str
    thought: bool


@dataclass(frozen=True)
class Example:
    """One row, understood. `spans` in their order; thoughts without their tags."""

    row_id: str
    group: str  # what results are broken down by; Magpie's difficulty
    instruction: str
    spans: tuple[Span, ...]
    notes: tuple[str, ...] = ()

    @property
    def thoughts(self) -> list[str]:
        return [span.text for span in self.spans if span.thought]

    @property
    def answer(self) -> str:
        """The text after the last thought."""
        return "" if self.spans[-1].thought else self.spans[-1].text


def parse(
    response: str,
    tags: Tags = Tags(),
    untidy: MalformedPolicy = MalformedPolicy(),  # noqa: B008 (never changed)
) -> tuple[tuple[Span, ...], tuple[str, ...]]:
    """The spans of a response and notes of what was untidy; `unparse` of the spans is the response, byte for byte
    where nothing was repaired.

    Tags in code are text where that gives a tidy reading; else (a fence that a thought left open) all tags are tags.
    Raises MalformedResponse for an empty response and for the shapes that `untidy` says to drop.
    """
    if not response.strip():
        raise MalformedResponse("empty response")
    if SURROGATES.search(response):
        raise MalformedResponse("not valid UTF-8")
    shapes = Shapes(untidy)
    response = _plain_lines(response, shapes)
    if _repeats(response):
        shapes.met("repetition")
    pieces = _tag_pattern(tags).split(response)
    if "`" in response or "~~~" in response:
        in_code = _without_tags_in_code(response, tags)
        if len(in_code) < len(pieces) and _tidy(in_code, tags):
            shapes.met("tags_in_code")
            pieces = in_code
    spans = _spans(pieces, tags, shapes)
    return spans, tuple(shapes.notes)


def unparse(spans: tuple[Span, ...], tags: Tags = Tags()) -> str:
    """The response that these spans came from."""
    return "".join(f"{tags.open}{span.text}{tags.close}" if span.thought else span.text for span in spans)


def _plain_lines(response: str, shapes: Shapes) -> str:
    if "\r\n" in response and shapes.met("windows_lines") == "repair":
        response = response.replace("\r\n", "\n")
    if not response.isascii():
        if any(separator in response for separator in SEPARATORS) and shapes.met("odd_lines") == "repair":
            response = response.translate(dict.fromkeys(map(ord, SEPARATORS), "\n"))
        if "\ufffd" in response:
            shapes.met("damaged")
    return response


def _repeats(text: str) -> bool:
    """Whether some stretch of the text is one passage over and over: such a stretch packs into next to nothing."""
    if len(text) < WINDOW:
        return False
    data = text.encode()
    return any(
        len(zlib.compress(data[start : start + WINDOW], 1)) < PACKED * WINDOW
        for start in range(0, len(data) - WINDOW + 1, WINDOW // 2)
    )


@cache
def _tag_pattern(tags: Tags) -> re.Pattern[str]:
    return re.compile(f"({re.escape(tags.open)}|{re.escape(tags.close)})")


def _without_tags_in_code(response: str, tags: Tags) -> list[str]:
    """The response split at the tags that do not stand in code: text, tag, text, tag, …, text."""
    code = _code(response)
    pieces, at, span = [], 0, 0
    for match in _tag_pattern(tags).finditer(response):
        while span < len(code) and code[span][1] <= match.start():
            span += 1
        if span < len(code) and code[span][0] <= match.start():
            continue
        pieces += [response[at : match.start()], match[0]]
        at = match.end()
    return [*pieces, response[at:]]


def _code(text: str) -> list[tuple[int, int]]:
    """(start, end) of each fence with an end and of what stands between backticks in a line, in order; linear."""
    marks: list[tuple[re.Match[str], str, int]] = []  # with what it consists of and the number of its line
    line = at = 0
    for match in MARK.finditer(text):
        line += text.count("\n", at, match.start())
        at = match.start()
        marks.append((match, match["fence"] or match[0], line))
    closing = [0] * len(marks)  # the mark that ends what each one opens; 0 if it opens nothing
    later: dict[tuple[str, int | None], int] = {}  # the nearest one, by line; None for bare fences
    for i, (match, run, line) in reversed(list(enumerate(marks))):
        closing[i] = (later.get((run, None), 0) if match["fence"] else 0) or later.get((run, line), 0)
        later[run, line] = i
        if match["bare"] is not None:
            later[run, None] = i
    spans, i = [], 0
    while i < len(marks):
        if closing[i]:
            spans.append((marks[i][0].start(), marks[closing[i]][0].end()))
        i = max(i, closing[i]) + 1
    return spans


def _tidy(pieces: list[str], tags: Tags) -> bool:
    """Whether opening and closing tags take turns and text comes last; a first opening tag may be missing."""
    kinds = [piece == tags.open for piece in pieces[1::2]]
    kinds = kinds[1:] if kinds[:1] == [False] else kinds
    return kinds == [True, False] * (len(kinds) // 2) and bool(pieces[-1].strip())


def _spans(pieces: list[str], tags: Tags, shapes: Shapes) -> tuple[Span, ...]:
    """Spans from text, tag, text, tag, …, text."""
    if len(pieces) == 1:
        shapes.met("no_thought")
        return (Span(pieces[0], thought=False),)
    if pieces[1] == tags.close:
        shapes.met("missing_open")
        pieces = ["", tags.open, *pieces]
    if pieces[0].strip() and shapes.met("text_before") == "repair":
        pieces = ["", pieces[1], pieces[0] + pieces[2], *pieces[3:]]
    spans: list[Span] = []
    text, depth = pieces[0], 0
    for tag, following in zip(pieces[1::2], pieces[2::2], strict=True):
        opens = tag == tags.open
        if (opens and depth == 0) or (not opens and depth == 1):
            spans.append(Span(text, thought=not opens))
            text = following
        else:  # a tag that has no place here
            text += (tag if shapes.met("nested" if depth else "lone_close") == "keep" else "") + following
        depth = max(depth + (1 if opens else -1), 0)
    spans.append(Span(text, thought=depth > 0))
    if depth:
        shapes.met("unclosed")
    return _with_answer(_without_empty(spans, shapes), shapes)


def _without_empty(spans: list[Span], shapes: Shapes) -> list[Span]:
    left: list[Span] = []
    for span in spans:
        if span.thought and not span.text.strip() and shapes.met("empty_thought") == "repair":
            continue
        if not span.text and not span.thought:
            continue
        if left and not span.thought and not left[-1].thought:  # what stood around a block that was taken out
            span = Span(left.pop().text + span.text, thought=False)
        left.append(span)
    return left


def _with_answer(spans: list[Span], shapes: Shapes) -> tuple[Span, ...]:
    if not spans or spans[-1].thought or not spans[-1].text.strip():
        shapes.met("no_answer")
    if not any(span.thought or span.text.strip() for span in spans):
        raise MalformedResponse("nothing left to learn")
    return tuple(spans)


@dataclass
class Columns:
    """Names of the columns of the source."""

    instruction: str = "instruction"
    """What the user asks."""
    response: str = "response"
    """The answer, with its think block."""
    conversations: str = "conversations"
    """Fallback where the two above are missing: a list of {from: human | gpt, value: text}."""
    row_id: str = "conversation_id"
    """Names a row in messages; without such a column uuid or id does, else its position."""
    group: str = "difficulty"
    """Results are broken down by the values of this column, where it exists."""

    def check(self, present: list[str]) -> None:
        """Raises UserError if a row with these columns cannot be read."""
        needed = [self.instruction, self.response]
        missing = [column for column in needed if column not in present]
        if missing and self.conversations not in present:
            names = " and ".join(missing)
            fix = f"set data.columns.instruction and data.columns.response to two of: {', '.join(present)}"
            raise UserError("data.columns", names, "is not in the data, nor is there a conversations column", fix)

    def texts(self, row: Mapping[str, Any]) -> tuple[Any, Any]:
        """What the row has for its instruction and its response, whatever that is."""
        instruction, response = row.get(self.instruction), row.get(self.response)
        if instruction is None or response is None:
            turns = row.get(self.conversations)
            turns = turns if isinstance(turns, list) else []
            said = {str(turn.get("from")): turn.get("value") for turn in reversed(turns) if isinstance(turn, Mapping)}
            instruction, response = instruction or said.get("human"), response or said.get("gpt")
        return instruction, response

    def name_of(self, row: Mapping[str, Any], position: int) -> str:
        """What names this row, the one at that position of its source."""
        names: Iterator[Any] = (row.get(column) for column in (self.row_id, "uuid", "id"))
        return next((_whole(str(name)) for name in names if name not in (None, "")), str(position))


def example(
    row: Mapping[str, Any],
    columns: Columns,
    position: int,
    tags: Tags = Tags(),
    untidy: MalformedPolicy = MalformedPolicy(),  # noqa: B008 (never changed)
) -> Example:
    """The Example in this row. Raises MalformedResponse if a text is missing, null, not a string or not parseable."""
    instruction, response = columns.texts(row)
    if not isinstance(instruction, str) or not isinstance(response, str):
        raise MalformedResponse("instruction or response is not a text")
    if not instruction.strip():
        raise MalformedResponse("empty instruction")
    if SURROGATES.search(instruction):
        raise MalformedResponse("not valid UTF-8")
    spans, notes = parse(response, tags, untidy)
    group = _whole(str(row.get(columns.group) or "all"))
    return Example(columns.name_of(row, position), group, instruction, spans, notes)


def _whole(name: str) -> str:
    """A name that can be written, whatever bytes the source had."""
    return SURROGATES.sub("\ufffd", name)
