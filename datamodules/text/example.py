"""RawExample -> Example: the texts of a row checked, and its response parsed."""

from dataclasses import dataclass
from typing import Any

from datamodules.layouts.conversation import Message, RawExample
from datamodules.text.malformed import MalformedPolicy, MalformedResponse
from datamodules.text.response import SURROGATES, Passage, parse
from datamodules.text.tags import Tags

LONGEST_TEXT = 1 << 22  # characters of an instruction or response: 4 million, about a million tokens


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


def parse_example(
    raw: RawExample,
    tags: Tags = Tags(),  # noqa: B008 (frozen)
    policy: MalformedPolicy = MalformedPolicy(),  # noqa: B008 (never changed)
) -> Example:
    """Parse a row. Raises MalformedResponse if a text is missing, not a string, empty or malformed under `policy`."""
    if raw.problem:
        raise MalformedResponse(raw.problem)
    instruction, response = raw.instruction, whole_response(raw.messages[-1], tags)
    if not isinstance(instruction, str) or not isinstance(response, str):
        raise MalformedResponse("instruction or response is not a text")
    if len(instruction) > LONGEST_TEXT or len(response) > LONGEST_TEXT:
        raise MalformedResponse(f"a text of more than {LONGEST_TEXT:,} characters")
    if not instruction.strip():
        raise MalformedResponse("empty instruction")
    if SURROGATES.search(instruction):
        raise MalformedResponse("not valid UTF-8")
    passages, notes = parse(response, tags, policy)
    return Example(instruction, passages, raw.notes + notes)


def whole_response(message: Message, tags: Tags) -> Any:
    """Return the text of an answer with its reasoning in tags before it, if the reasoning has a field of its own.

    Reasoning that has tags and text after them is the whole response. Raises MalformedResponse if the text has a
    thought as well, and another one.
    """
    text, reasoning = message.text, message.reasoning
    if not isinstance(text, str) or not isinstance(reasoning, str) or not reasoning.strip():
        return text
    inner = reasoning.strip().removeprefix(tags.open).removesuffix(tags.close)
    if tags.open in inner or tags.close in inner:
        return reasoning
    if inner != reasoning.strip():
        reasoning = inner
    if tags.open in text or tags.close in text:
        if reasoning.strip() in text:
            return text
        raise MalformedResponse("reasoning in the response and, different, in a field of its own")
    return f"{tags.open}{reasoning}{tags.close}{text}"
