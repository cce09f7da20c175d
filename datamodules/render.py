"""Example -> Segments: the text of one training row in pieces, each with its role.

    PROMPT "### Instruction: Solve 2x = 4\\n### Response: "   TAG_OPEN   THOUGHT "x = 2."   TAG_CLOSE   ANSWER "2"   END

Pieces are tokenized one by one and tags are inserted as ids, so what is supervised is exact by construction, the prompt
has the same ids when the model is trained and when it is asked, and a tag typed by a user stays plain text.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

from datamodules.steps import split_steps
from datamodules.thoughts import Example, Span
from errors import UserError

Think = Literal["single", "multi"]
INSTRUCTION, RESPONSE = "{instruction}", "{response}"


class Role(IntEnum):
    """What a token is. Every role but PROMPT is supervised."""

    PROMPT = 0
    TAG_OPEN = 1
    THOUGHT = 2
    TAG_CLOSE = 3
    ANSWER = 4
    END = 5


@dataclass(frozen=True)
class Segment:
    role: Role
    text: str = ""  # empty for the roles that are one id: the tags and the end


@dataclass(frozen=True)
class Template:
    """Text around an instruction and its response, as in `"### Instruction: {instruction}\\n### Response: {response}"`.

    Raises UserError unless both places are there once, the response at the end: the end token follows it directly.
    """

    text: str

    def __post_init__(self) -> None:
        for place in (INSTRUCTION, RESPONSE):
            if self.text.count(place) != 1:
                raise UserError(
                    "data.template", self.text, f"must contain {place} once", "write the text around both places"
                )
        if not self.text.endswith(RESPONSE):
            raise UserError(
                "data.template", self.text, f"must end in {RESPONSE}", "the end-of-sequence token is added after it"
            )

    @property
    def before(self) -> str:
        return self.text.partition(INSTRUCTION)[0]

    @property
    def between(self) -> str:
        return self.text.partition(INSTRUCTION)[2].removesuffix(RESPONSE)

    def prompt(self, instruction: str) -> str:
        """All that the model is given; what comes after it is the model's."""
        return self.before + instruction + self.between


def thoughts_as_steps(spans: tuple[Span, ...]) -> Iterator[Span]:
    """Multi-think: each thought becomes one thought per step; the text around them stays as it is."""
    for span in spans:
        yield from (Span(step, thought=True) for step in split_steps(span.text)) if span.thought else (span,)


def render(example: Example, template: Template, think: Think) -> list[Segment]:
    """The segments of one row, in order; the first is the prompt, the last the end."""
    segments = [Segment(Role.PROMPT, template.prompt(example.instruction))]
    for span in thoughts_as_steps(example.spans) if think == "multi" else example.spans:
        if span.thought:
            segments += [Segment(Role.TAG_OPEN), Segment(Role.THOUGHT, span.text), Segment(Role.TAG_CLOSE)]
        else:
            segments.append(Segment(Role.ANSWER, span.text))
    return [*segments, Segment(Role.END)]
