"""The columns of a source, read into a RawExample: here and nowhere else."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from datamodules.layouts.conversation import Message, RawExample
from errors import UserError

CONVERSATIONS = "conversations"  # fallback for the two texts: a list of {from: human | gpt, value: text}
ROW_ID_COLUMNS = ("conversation_id", "uuid", "id")  # the first of them that has a value names the row
GROUP_COLUMN = "difficulty"  # results are broken down by its values
SURROGATES = re.compile("[\ud800-\udfff]")


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

    def read(self, row: Mapping[str, Any], place: object) -> RawExample:
        """Read the texts and names of a row. A row without an id is named by str() of its place in the source."""
        instruction, response = row.get(self.instruction), row.get(self.response)
        if instruction is None or response is None:
            turns = row.get(CONVERSATIONS)
            turns = turns if isinstance(turns, list) else []
            texts = {str(turn.get("from")): turn.get("value") for turn in reversed(turns) if isinstance(turn, Mapping)}
            instruction, response = instruction or texts.get("human"), response or texts.get("gpt")
        messages = Message("user", instruction), Message("assistant", response)
        ids = (row.get(column) for column in ROW_ID_COLUMNS)
        row_id = next((str(value) for value in ids if value not in (None, "")), None)
        group = row.get(GROUP_COLUMN)
        group = "all" if group in (None, "") else str(group)
        return RawExample(row, _encodable(str(place) if row_id is None else row_id), _encodable(group), messages)


def _encodable(name: str) -> str:
    """The name with U+FFFD for each surrogate, which UTF-8 cannot encode."""
    return SURROGATES.sub("\ufffd", name)
