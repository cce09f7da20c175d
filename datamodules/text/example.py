"""RawExample -> Example: the texts of a row checked, and its response parsed."""

from dataclasses import dataclass

from datamodules.layouts.conversation import RawExample
from datamodules.text.blank import is_blank
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
    instruction, response = raw.instruction, raw.response
    if not isinstance(instruction, str) or not isinstance(response, str):
        raise MalformedResponse("instruction or response is not a text")
    if len(instruction) > LONGEST_TEXT or len(response) > LONGEST_TEXT:
        raise MalformedResponse(f"a text of more than {LONGEST_TEXT:,} characters")
    if is_blank(instruction):
        raise MalformedResponse("empty instruction")
    if SURROGATES.search(instruction):
        raise MalformedResponse("not valid UTF-8")
    return Example(instruction, *parse(response, tags, policy))
