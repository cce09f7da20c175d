"""A row of the data as a conversation. The texts are checked later, by `text.example`."""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

Speaker = Literal["system", "user", "assistant"]


class Message(NamedTuple):
    """One message of a conversation. Its texts may be any value of the source."""

    role: Speaker
    text: Any
    reasoning: Any = None  # the thinking of an assistant, if it has a field or column of its own; without tags


class RawExample(NamedTuple):
    """A row of a source as messages, with its names."""

    row: Mapping[str, Any]
    row_id: str
    group: str
    messages: tuple[Message, ...]  # system if there is one, then user and assistant in turn; empty with a problem
    problem: str = ""  # why the row has no messages; it is counted under this reason
    notes: tuple[str, ...] = ()  # what was left out of the row
    layout: str = ""  # how it was read, in words

    @property
    def instruction(self) -> Any:
        """The last message of the user."""
        return next((message.text for message in reversed(self.messages) if message.role == "user"), None)

    @property
    def response(self) -> Any:
        """The last message, if it is the assistant's."""
        return self.messages[-1].text if self.messages and self.messages[-1].role == "assistant" else None

    @property
    def question(self) -> str | None:
        """All that the user says, which decides whether the row is held out and whether it is a near duplicate. None if
        a message of the user is not a text."""
        texts = [message.text for message in self.messages if message.role == "user"]
        return "\n".join(texts) if texts and all(isinstance(text, str) for text in texts) else None
