"""RawExample -> Example: the texts of a row checked, and its answers parsed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from datamodules.layouts.conversation import Message, RawExample
from datamodules.layouts.messages import REASONING_NO_TEXT
from datamodules.text.blank import is_blank
from datamodules.text.malformed import SHAPES, MalformedPolicy, MalformedResponse
from datamodules.text.response import Passage, parse
from datamodules.text.tags import Tags
from visible import SURROGATES

LONGEST_TEXT = 1 << 22  # characters of a message: 4 million, about a million tokens
Turns = Literal["last", "each", "all"]


class Turn(NamedTuple):
    """A message of the user, and the passages of the answer to it."""

    instruction: str
    passages: tuple[Passage, ...]


@dataclass(frozen=True)
class Example:
    """A parsed row: its last instruction, the passages of the response to it in order, and what was said before."""

    instruction: str
    passages: tuple[Passage, ...]
    notes: tuple[str, ...] = ()  # one for each malformed shape, like "no opening tag (repaired)"
    system: str | None = None  # the system prompt of the row itself
    history: tuple[Turn, ...] = ()  # the turns before the last one, oldest first

    @property
    def thoughts(self) -> list[str]:
        return [text for text, thought in self.passages if thought]

    @property
    def answer(self) -> str:
        """The text after the last thought."""
        return "" if self.passages[-1].thought else self.passages[-1].text


def each_answer(raw: RawExample) -> list[RawExample]:
    """Return an example for each answer of a conversation, with what was said before it. Answer k of row r is r/k."""
    answers = [k for k, message in enumerate(raw.messages, 1) if message.role == "assistant"]
    return [
        raw._replace(row_id=f"{raw.row_id}/{number}", messages=raw.messages[:k]) for number, k in enumerate(answers, 1)
    ] or [raw]


def parse_example(
    raw: RawExample,
    tags: Tags = Tags(),  # noqa: B008 (frozen)
    policy: MalformedPolicy = MalformedPolicy(),  # noqa: B008 (never changed)
    turns: Turns = "last",
) -> Example:
    """Parse a row. `policy` decides about its response, and with `turns` all about its earlier answers, too.

    An earlier answer that is only read, not learned, drops no row for its shape. Raises MalformedResponse if a text is
    missing, not a string, empty or malformed under `policy`.
    """
    if raw.problem:
        raise MalformedResponse(raw.problem)
    if not isinstance(raw.instruction, str) or not isinstance(raw.response, str):
        raise MalformedResponse("instruction or response is not a text")
    _check_text(raw.instruction, "instruction")
    passages, notes = _parse_answer(raw.messages[-1], tags, policy)
    if len(raw.messages) == 2:
        return Example(raw.instruction, passages, raw.notes + notes)
    system, history, found = parse_history(raw.messages[:-2], tags, policy if turns == "all" else _keeping(policy))
    found = (
        found
        if turns == "all"
        else [f"earlier answer: {note}" for note in found if note.endswith(("(repaired)", "(last_close)"))]
    )
    return Example(raw.instruction, passages, tuple(dict.fromkeys([*raw.notes, *found, *notes])), system, history)


def parse_history(
    messages: Sequence[Message], tags: Tags, policy: MalformedPolicy
) -> tuple[str | None, tuple[Turn, ...], list[str]]:
    """Return the system prompt, the turns and the notes of the messages before the last one of the user.

    An empty system prompt is none. Raises MalformedResponse as `parse_example`, and if the speakers do not alternate.
    """
    system: str | None = None
    if messages and messages[0].role == "system":
        system, messages = messages[0].text, messages[1:]
        if system is not None and not isinstance(system, str):
            raise MalformedResponse("system prompt is not a text")
        if system is not None and not is_blank(system):
            _check_text(system, "system prompt")
        else:
            system = None
    if [message.role for message in messages] != ["user", "assistant"] * (len(messages) // 2):
        raise MalformedResponse("user and assistant do not alternate")
    history: list[Turn] = []
    notes: list[str] = []
    for question, answer in zip(messages[::2], messages[1::2], strict=True):
        if not isinstance(question.text, str) or not isinstance(answer.text, str):
            raise MalformedResponse("an earlier message is not a text")
        _check_text(question.text, "earlier message")
        try:
            passages, found = _parse_answer(answer, tags, policy)
        except MalformedResponse as error:  # its places are those of an earlier answer
            raise error.without_places() from error
        history.append(Turn(question.text, passages))
        notes += found
    return system, tuple(history), notes


def _check_text(text: str, name: str) -> None:
    if len(text) > LONGEST_TEXT:
        raise MalformedResponse(f"a text of more than {LONGEST_TEXT:,} characters")
    if is_blank(text):
        raise MalformedResponse(f"empty {name}")
    if SURROGATES.search(text):
        raise MalformedResponse("not valid UTF-8")


def _parse_answer(message: Message, tags: Tags, policy: MalformedPolicy) -> tuple[tuple[Passage, ...], tuple[str, ...]]:
    """The passages of an answer, and a note for each malformed shape."""
    text, reasoning = message.text, message.reasoning
    if reasoning is not None and not isinstance(reasoning, str):
        raise MalformedResponse(REASONING_NO_TEXT)
    if len(text) > LONGEST_TEXT or len(reasoning or "") > LONGEST_TEXT:
        raise MalformedResponse(f"a text of more than {LONGEST_TEXT:,} characters")
    if reasoning is None or is_blank(reasoning):
        return parse(text, tags, policy)
    try:
        return parse(_whole(text, reasoning, tags), tags, policy)
    except MalformedResponse as error:  # its places are not those of the text
        raise error.without_places() from error


def _whole(text: str, reasoning: str, tags: Tags) -> str:
    """The text of an answer after its reasoning in tags. Reasoning with tags and the answer after them is the whole
    response; with another answer its tags are tags inside of a thought.

    Raises MalformedResponse if the text has another thought.
    """
    inner = reasoning.strip().removeprefix(tags.open).removesuffix(tags.close)
    if tags.open in inner or tags.close in inner:
        _, close, answer = inner.rpartition(tags.close)
        if close and text.strip() in answer:
            return reasoning
    elif inner != reasoning.strip():
        reasoning = inner
    if tags.open in text or tags.close in text:
        if reasoning.strip() in text.rpartition(tags.close)[0]:
            return text
        raise MalformedResponse("reasoning in the response and, different, in a field of its own")
    return f"{tags.open}{reasoning}{tags.close}{text}"


def _keeping(policy: MalformedPolicy) -> MalformedPolicy:
    """The policy with the actions of data.malformed keep in place of drop."""
    actions = policy.actions.items()
    return MalformedPolicy({name: SHAPES[name].keep if action == "drop" else action for name, action in actions})
