"""A row of the data read into a RawExample, and a RawExample parsed into an Example.

A row's texts and names are read from its columns here and nowhere else.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from datamodules.text.malformed import MalformedPolicy, MalformedResponse
from datamodules.text.response import SURROGATES, Passage, parse
from datamodules.text.tags import Tags
from errors import UserError

CONVERSATIONS = "conversations"  # fallback for the two texts: a list of {from: human | gpt, value: text}
ROW_ID_COLUMNS = ("conversation_id", "uuid", "id")  # the first of them that has a value names the row
GROUP_COLUMN = "difficulty"  # results are broken down by its values
LONGEST_TEXT = 1 << 22  # characters of an instruction or response: 4 million, about a million tokens


class RawExample(NamedTuple):
    """A row of a source with its texts and names. `parse_example` checks the texts, which may be any value."""

    row: Mapping[str, Any]
    row_id: str
    group: str
    instruction: Any
    response: Any


@dataclass(frozen=True)
class Example:
    """A parsed row: its instruction, and the passages of its response in order."""

    instruction: str
    passages: tuple[Passage, ...]
    notes: tuple[str, ...] = ()  # one for each malformed shape, like "no opening tag (repaired)"

    @property
    def thoughts(self) -> list[str]:
        return [text for text, thought in self.passages if thought]

    @property
    def answer(self) -> str:
        """The text after the last thought."""
        return "" if self.passages[-1].thought else self.passages[-1].text


@dataclass
class Columns:
    """The columns of the source that hold the texts. Rows without them may have a `conversations` column."""

    instruction: str = "instruction"
    """Column of the user's question or task."""
    response: str = "response"
    """Column of the response: thoughts in tags, then the answer."""

    def check(self, present: list[str]) -> None:
        """Raise UserError if a row with the columns `present` has no texts."""
        missing = [column for column in (self.instruction, self.response) if column not in present]
        if missing and CONVERSATIONS not in present:
            names = " and ".join(missing)
            fix = f"set data.columns.instruction and data.columns.response to two of: {', '.join(present)}"
            raise UserError("data.columns", names, "is not in the data, and there is no conversations column", fix)

    def read(self, row: Mapping[str, Any], position: int) -> RawExample:
        """Read the texts and names of a row. A row without an id is named by its position in the source."""
        instruction, response = row.get(self.instruction), row.get(self.response)
        if instruction is None or response is None:
            turns = row.get(CONVERSATIONS)
            turns = turns if isinstance(turns, list) else []
            texts = {str(turn.get("from")): turn.get("value") for turn in reversed(turns) if isinstance(turn, Mapping)}
            instruction, response = instruction or texts.get("human"), response or texts.get("gpt")
        ids = (row.get(column) for column in ROW_ID_COLUMNS)
        row_id = next((_encodable(str(value)) for value in ids if value not in (None, "")), str(position))
        return RawExample(row, row_id, _encodable(str(row.get(GROUP_COLUMN) or "all")), instruction, response)


def _encodable(name: str) -> str:
    """The name with U+FFFD for each surrogate, which UTF-8 cannot encode."""
    return SURROGATES.sub("\ufffd", name)


def parse_example(
    raw: RawExample,
    tags: Tags = Tags(),  # noqa: B008 (frozen)
    policy: MalformedPolicy = MalformedPolicy(),  # noqa: B008 (never changed)
) -> Example:
    """Parse a row. Raises MalformedResponse if a text is missing, not a string, empty or malformed under `policy`."""
    instruction, response = raw.instruction, raw.response
    if not isinstance(instruction, str) or not isinstance(response, str):
        raise MalformedResponse("instruction or response is not a text")
    if len(instruction) > LONGEST_TEXT or len(response) > LONGEST_TEXT:
        raise MalformedResponse(f"a text of more than {LONGEST_TEXT:,} characters")
    if not instruction.strip():
        raise MalformedResponse("empty instruction")
    if SURROGATES.search(instruction):
        raise MalformedResponse("not valid UTF-8")
    return Example(instruction, *parse(response, tags, policy))
