"""A response as its author wrote it, taken apart into thoughts and the text around them, without losing a character.

    "<think>\\nA. B.\\n</think>\\n\\nx = 7"  ->  Span("\\nA. B.\\n", thought), Span("\\n\\nx = 7", text)

Untidy responses are repaired where there is one way to read them, or refused with a reason that is counted and shown.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from errors import UserError

OPEN, CLOSE = "<think>", "</think>"
TAGS = re.compile(f"({OPEN}|{CLOSE})")
NO_OPENING_TAG = "repaired: no opening tag"


class Malformed(ValueError):
    """A row that cannot be learned from. Its text is the reason under which it is counted."""


@dataclass(frozen=True)
class Span:
    text: str
    thought: bool


@dataclass(frozen=True)
class Example:
    """One row, understood. `spans` in their order; thoughts without their tags."""

    row_id: str
    group: str  # what results are broken down by; Magpie's difficulty
    instruction: str
    spans: tuple[Span, ...]
    repairs: tuple[str, ...] = ()

    @property
    def thoughts(self) -> list[str]:
        return [span.text for span in self.spans if span.thought]

    @property
    def answer(self) -> str:
        """The text after the last thought."""
        return "" if self.spans[-1].thought else self.spans[-1].text


def parse(response: str) -> tuple[tuple[Span, ...], tuple[str, ...]]:
    """The spans of a response and the repairs that were needed. `unparse` of the spans gives a tidy response back.

    Repaired: a block whose opening tag is missing (the template of the model that wrote it had supplied it).
    Raises Malformed: nothing written; a block in a block; a block never closed (the writer was cut off); a closing tag
    on its own after a block; a block with nothing in it; no answer after the last block. No tags at all is fine.
    """
    if not response.strip():
        raise Malformed("empty response")
    if response.find(CLOSE) >= 0 and not 0 <= response.find(OPEN) < response.find(CLOSE):
        spans, repairs = parse(OPEN + response)
        return spans, (NO_OPENING_TAG, *repairs)
    spans_found: list[Span] = []
    inside = False
    for piece in TAGS.split(response):
        if piece == OPEN:
            if inside:
                raise Malformed("think block inside a think block")
            inside = True
        elif piece == CLOSE:
            if not inside:
                raise Malformed("closing tag without an opening one")
            inside = False
        elif inside:
            if not piece.strip():
                raise Malformed("empty think block")
            spans_found.append(Span(piece, thought=True))
        elif piece:
            spans_found.append(Span(piece, thought=False))
    if inside:
        raise Malformed("think block never closed")
    if spans_found[-1].thought or not spans_found[-1].text.strip():
        raise Malformed("no answer after the thoughts")
    return tuple(spans_found), ()


def unparse(spans: tuple[Span, ...]) -> str:
    """The response that these spans came from, byte for byte where nothing was repaired."""
    return "".join(f"{OPEN}{span.text}{CLOSE}" if span.thought else span.text for span in spans)


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
    """Names a row in messages; without such a column its position does."""
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


def example(row: Mapping[str, Any], columns: Columns, position: int) -> Example:
    """The Example in this row. Raises Malformed if a text is missing, null, not a string or not parseable."""
    instruction, response = row.get(columns.instruction), row.get(columns.response)
    if instruction is None or response is None:
        turns = row.get(columns.conversations) or []
        said = {turn.get("from"): turn.get("value") for turn in reversed(turns) if isinstance(turn, Mapping)}
        instruction, response = instruction or said.get("human"), response or said.get("gpt")
    if not isinstance(instruction, str) or not isinstance(response, str):
        raise Malformed("instruction or response is not a text")
    if not instruction.strip():
        raise Malformed("empty instruction")
    spans, repairs = parse(response)
    row_id = str(row.get(columns.row_id) or position)
    return Example(row_id, str(row.get(columns.group) or "all"), instruction, spans, repairs)
