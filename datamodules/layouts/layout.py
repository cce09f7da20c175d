"""The layouts that a row of given columns may have, in the order in which they are tried.

1. Columns that the user names. 2. `instruction` and `response`. 3. A conversation. 4. Other names of a question and an
answer, such as prompt and completion, or question, solution and answer: then the solution is the reasoning.
A column of reasoning belongs to the answer; of a conversation, to its last answer.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from datamodules.layouts.columns import (
    ANSWERS,
    INPUT,
    MESSAGES,
    QUESTIONS,
    SYSTEMS,
    Columns,
    looks_like_reasoning,
    named,
    plain,
)
from datamodules.layouts.conversation import Message
from datamodules.layouts.messages import REASONING_NO_TEXT, NoConversation, read_conversation, well_formed

Messages = tuple[tuple[Message, ...], tuple[str, ...]]  # with notes
ATTEMPTS = ("attempt", "answer", "response", "output")  # what follows the name of a model in the column of its answer


@dataclass(frozen=True)
class Conversation:
    """A column of messages."""

    column: str
    reasoning: str | None  # a column, for the last answer
    field: str | None  # of a message, named by the user
    system: str | None
    ignore: tuple[str, ...]

    def words(self) -> str:
        return _words(messages=self.column, reasoning=self.reasoning or self.field, system=self.system)

    def used(self) -> set[str | None]:
        return {self.column, self.reasoning, self.system}

    def read(self, row: Mapping[str, Any]) -> Messages | None:
        """Return the messages; None if the column has no value. Raises NoConversation."""
        if row.get(self.column) in (None, "", []):
            return None
        messages = read_conversation(row[self.column], self.field, self.ignore)
        if self.system and _text(row.get(self.system)) and messages[0].role != "system":
            messages.insert(0, Message("system", row[self.system]))
        return _with_reasoning(well_formed(messages), _reasoning(row, self.reasoning))


@dataclass(frozen=True)
class Texts:
    """A column for each text of one question and its answer."""

    instruction: str
    response: str
    reasoning: str | None
    input: str | None
    system: str | None

    def words(self) -> str:
        return _words(**vars(self))

    def used(self) -> set[str | None]:
        return {self.instruction, self.response, self.reasoning, self.input, self.system}

    def read(self, row: Mapping[str, Any]) -> Messages | None:
        """Return the messages; None if a column has no value. Raises NoConversation."""
        instruction, response = row.get(self.instruction), row.get(self.response)
        if instruction is None or response is None:
            return None
        system = _text(row.get(self.system)) if self.system else None
        before = (Message("system", system),) if system else ()
        reasoning = _reasoning(row, self.reasoning)
        more = _text(row.get(self.input)) if self.input else None
        if _are_messages(instruction) or _are_messages(response):  # prompt and completion
            asked = read_conversation(instruction, None, ()) if _are_messages(instruction) else None
            answered = read_conversation(response, None, ()) if _are_messages(response) else None
            asked, answered = asked or [Message("user", instruction)], answered or [Message("assistant", response)]
            if more:
                raise NoConversation(f"a prompt of messages beside a text in {self.input}")
            return _with_reasoning(well_formed([*before, *asked, *answered]), reasoning)
        if more and isinstance(instruction, str):
            instruction = f"{instruction}\n\n{more}"
        return (*before, Message("user", instruction), Message("assistant", response, reasoning)), ()


Layout = Conversation | Texts


def layouts_of(names: Sequence[str], columns: Columns) -> list[Layout]:
    """Return the layouts that a row with these columns may have, the first one first; none if there is none."""
    reasoning = _reasoning_column(names, columns)
    system = columns.system or next(_present(SYSTEMS, names), None)
    if columns.messages is not None:
        found = [columns.messages] if columns.messages in names else []
    else:
        found = [*_present(MESSAGES, names)]
    field = columns.reasoning if columns.reasoning not in names else None
    conversations = [Conversation(name, reasoning, field, system, tuple(columns.ignore)) for name in found]
    if columns.messages is not None:
        return [*conversations]
    texts = _texts(names, columns, reasoning, system)
    given = columns.instruction is not None or columns.response is not None
    if texts is not None and (
        given or (plain(texts.instruction), plain(texts.response)) == ("instruction", "response")
    ):
        return [texts, *conversations]
    return [*conversations, *([texts] if texts is not None else [])]


def reasoning_columns(names: Sequence[str], columns: Columns) -> list[str]:
    """Return the columns with a name of reasoning that the user has not named otherwise."""
    taken = {columns.messages, columns.instruction, columns.response, columns.input, columns.system, *columns.ignore}
    return [name for name in names if looks_like_reasoning(name) and name not in taken]


def _reasoning_column(names: Sequence[str], columns: Columns) -> str | None:
    if columns.reasoning is not None:
        return columns.reasoning if columns.reasoning in names else None
    found = reasoning_columns(names, columns)
    return found[0] if len(found) == 1 else None


def _texts(names: Sequence[str], columns: Columns, reasoning: str | None, system: str | None) -> Texts | None:
    questions = [columns.instruction] if columns.instruction is not None else [*_present(QUESTIONS, names)]
    taken = {columns.response, columns.input, reasoning}
    instruction = next((name for name in questions if name in names and name not in taken), None)
    if instruction is None:
        return None
    answers = (
        [columns.response]
        if columns.response is not None
        else [*_attempts(names, reasoning), *_present(ANSWERS, names)]
    )
    response = next((name for name in answers if name in names and name not in (instruction, reasoning)), None)
    if response is None:
        return None
    if reasoning is None and columns.response is None and plain(response) == "answer":
        reasoning = named("solution", [name for name in names if name not in columns.ignore])
    more = columns.input
    if more is None and plain(instruction) == "instruction":
        more = named(INPUT, [name for name in names if name not in columns.ignore])
    return Texts(instruction, response, reasoning, more if more in names and more != response else None, system)


def _present(wanted: Sequence[str], names: Sequence[str]) -> Iterator[str]:
    """The names of `wanted` that are there, as they stand there."""
    return (found for name in wanted if (found := named(name, names)) is not None)


def _attempts(names: Sequence[str], reasoning: str | None) -> list[str]:
    """The answers that belong to a column like `deepseek_thinking_trajectory`: `deepseek_attempt`."""
    if reasoning is None:
        return []
    model = reasoning.partition("_")[0]
    return [name for name in (f"{model}_{attempt}" for attempt in ATTEMPTS) if name in names]


def _reasoning(row: Mapping[str, Any], column: str | None) -> str | None:
    """The thoughts in a column. Raises NoConversation for a list or a mapping; a flag or a number is no reasoning."""
    value = row.get(column) if column is not None else None
    if isinstance(value, list | Mapping) and value:
        raise NoConversation(f"{REASONING_NO_TEXT} ({column})")
    return _text(value)


def _with_reasoning(read: Messages, reasoning: str | None) -> Messages:
    """The messages with the thoughts of a column in the last one, the assistant's. Raises NoConversation if it has
    others."""
    messages, notes = read
    own = messages[-1].reasoning
    if not reasoning or own == reasoning:
        return read
    if own is not None:
        raise NoConversation("reasoning in a column and, different, in a message")
    return (*messages[:-1], messages[-1]._replace(reasoning=reasoning)), notes


def _are_messages(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], Mapping)


def _text(value: Any) -> str | None:
    """The value if it is a text with something in it."""
    return value if isinstance(value, str) and value.strip() else None


def _words(**columns: str | None) -> str:
    """The settings of `data.columns` with their columns, where these have other names."""
    named = [(key, column) for key, column in columns.items() if column is not None]
    return ", ".join(key if key == column else f"{key} in {column}" for key, column in named)
