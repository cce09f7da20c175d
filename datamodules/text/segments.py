"""Example -> Segments: the text of one training row in pieces, each with its role.

    PROMPT "### Instruction: Solve 2x = 4\\n### Response: "   TAG_OPEN   THOUGHT "x = 2."   TAG_CLOSE   ANSWER "2"   END

Pieces are tokenized one by one and tags are inserted as ids, so what is supervised is exact by construction, the prompt
has the same ids when the model is trained and when it is asked, and a tag typed by a user stays plain text.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from datamodules.text.response import Example
from datamodules.text.steps import StepSettings, split_steps


class Role(IntEnum):
    """What a token is. Every role but PROMPT is supervised."""

    PROMPT = 0
    TAG_OPEN = 1
    THOUGHT = 2
    TAG_CLOSE = 3
    ANSWER = 4
    END = 5


class Segment(NamedTuple):  # cheaper than a dataclass: there are millions
    role: Role
    text: str = ""  # empty for the roles that are one id: the tags and the end
    control: bool = False  # the text is the name of one token of the template, as <|im_start|> is


TAG_OPEN, TAG_CLOSE, END = Segment(Role.TAG_OPEN), Segment(Role.TAG_CLOSE), Segment(Role.END)


@dataclass(frozen=True)
class Template:
    """What stands around an instruction; `datamodules.tokens.template` makes it from the settings.

    `parts` are the PROMPT segments of the template with None where the instruction goes. `strips`: white space around
    an instruction is left out. `chat`: the parts are those of the model's own chat template, with `system` as its
    system prompt. `opening`: what was taken from the end of the model's template because it opens the think block,
    which the model learns to do itself.
    """

    parts: tuple[Segment | None, ...]
    strips: bool = False
    chat: bool = False
    system: str | None = None
    opening: str = ""

    def prompt(self, instruction: str) -> list[Segment]:
        """All that the model is given; what comes after it is the model's. Text that touches is one segment, as it is
        one text for whoever renders the template and tokenizes it then."""
        instruction = instruction.strip() if self.strips else instruction
        segments: list[Segment] = []
        for part in self.parts:
            segment = Segment(Role.PROMPT, instruction) if part is None else part
            if segments and not segment.control and not segments[-1].control:
                segment = Segment(Role.PROMPT, segments.pop().text + segment.text)
            segments.append(segment)
        return segments


def render(example: Example, template: Template, steps: StepSettings) -> list[Segment]:
    """The segments of one row, in order; the first are the prompt's, the last is the end. Each step of a thought gets
    tags of its own; the text around the thoughts stays as it is."""
    segments = template.prompt(example.instruction)
    for text, thought in example.spans:
        if thought:
            for step in split_steps(text, steps):
                segments += (TAG_OPEN, Segment(Role.THOUGHT, step), TAG_CLOSE)
        else:
            segments.append(Segment(Role.ANSWER, text))
    return [*segments, END]
