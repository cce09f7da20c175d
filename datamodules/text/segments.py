"""Example -> Segments: the text of one training row in segments, each with a role.

    PROMPT "### Instruction: Solve 2x = 4\\n### Response: "   TAG_OPEN   THOUGHT "x = 2."   TAG_CLOSE   ANSWER "2"   END

Each segment is tokenized by itself and tags are inserted as ids. So the supervised tokens are exact by construction,
the prompt has the same ids in training and in generation, and a tag in the user's text stays text.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from datamodules.text.example import Example
from datamodules.text.steps import StepSettings, split_steps


class Role(IntEnum):
    """The role of a token. Every role except PROMPT is supervised."""

    PROMPT = 0
    TAG_OPEN = 1
    THOUGHT = 2
    TAG_CLOSE = 3
    ANSWER = 4
    END = 5


class Segment(NamedTuple):  # cheaper than a dataclass: there are millions
    """A text with one role."""

    role: Role
    text: str = ""  # empty for a role that is one id: the tags and the end
    control: bool = False  # the text is the name of one token of the template, such as <|im_start|>


TAG_OPEN, TAG_CLOSE, END = Segment(Role.TAG_OPEN), Segment(Role.TAG_CLOSE), Segment(Role.END)


@dataclass(frozen=True)
class Template:
    """The text around an instruction. `datamodules.tokens.template` makes it from the settings.

    Attributes:
        parts: The PROMPT segments of the template, with None in place of the instruction.
        strips: Whether the template strips white space around an instruction.
        chat: The Jinja text of a chat template, None for other templates.
        system: The system prompt of a chat template.
        opening: The opening tag at the end of the model's own template, which `parts` omits: the model learns to
            write it.
    """

    parts: tuple[Segment | None, ...]
    strips: bool = False
    chat: str | None = None
    system: str | None = None
    opening: str = ""

    def prompt(self, instruction: str) -> list[Segment]:
        """Return the segments of a prompt. Neighbouring texts are one segment, because a client that
        renders the template tokenizes them as one text."""
        instruction = instruction.strip() if self.strips else instruction
        segments: list[Segment] = []
        for part in self.parts:
            segment = Segment(Role.PROMPT, instruction) if part is None else part
            if segments and not segment.control and not segments[-1].control:
                segment = Segment(Role.PROMPT, segments.pop().text + segment.text)
            segments.append(segment)
        return segments


def render(example: Example, template: Template, steps: StepSettings) -> list[Segment]:
    """Return the segments of one row: the prompt, a tagged segment for each step of a thought, the texts around the
    thoughts, and the end."""
    segments = template.prompt(example.instruction)
    for text, thought in example.passages:
        if thought:
            for step in split_steps(text, steps) or [text]:  # a kept empty thought is one step
                segments += (TAG_OPEN, Segment(Role.THOUGHT, step), TAG_CLOSE)
        else:
            segments.append(Segment(Role.ANSWER, text))
    return [*segments, END]
