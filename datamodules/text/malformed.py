"""The shapes in which real responses are not whole blocks followed by an answer, and what is done about each."""

from dataclasses import dataclass, fields
from typing import Literal


class MalformedResponse(ValueError):
    """A row that cannot be learned from. Its text is the reason under which it is counted."""


@dataclass
class MalformedPolicy:
    """What is done about responses that are not whole blocks followed by an answer. All are counted and shown."""

    missing_open: Literal["repair", "drop"] = "repair"
    """A closing tag comes first, since the template of the model that wrote it had supplied the opening one. repair
    puts that in front."""
    unclosed: Literal["repair", "drop"] = "drop"
    """The last block never ends: the writer was cut off. repair closes it at the end of the text; what is left to
    no_answer then."""
    no_thought: Literal["keep", "drop"] = "drop"
    """There is no block at all. keep teaches to answer such instructions at once."""
    empty_thought: Literal["keep", "repair", "drop"] = "drop"
    """A block holds nothing but white space. repair takes it out."""
    no_answer: Literal["keep", "drop"] = "drop"
    """Nothing comes after the last block."""
    text_before: Literal["keep", "repair", "drop"] = "keep"
    """Text comes before the first block. repair moves it into that block."""
    lone_close: Literal["keep", "repair", "drop"] = "drop"
    """A closing tag comes after the block was closed. keep takes it for plain text, repair takes it out."""
    nested: Literal["keep", "repair", "drop"] = "drop"
    """Blocks stand in a block. keep takes the inner tags for plain text of the thought, repair takes them out."""
    tags_in_code: Literal["keep", "drop"] = "keep"
    """Tags stand in a code fence or between backticks. keep takes those for plain text."""
    windows_lines: Literal["keep", "repair", "drop"] = "keep"
    """Lines end in CR LF. repair leaves the LF."""
    odd_lines: Literal["keep", "repair", "drop"] = "keep"
    """Lines end in U+2028, U+2029 or U+0085. repair makes them LF."""
    damaged: Literal["keep", "drop"] = "drop"
    """A U+FFFD stands where characters were lost."""
    repetition: Literal["keep", "drop"] = "drop"
    """A stretch of 8,192 bytes (of UTF-8) says the same over and over."""


SHAPES = {
    "missing_open": "no opening tag",
    "unclosed": "think block never closed",
    "no_thought": "no think block",
    "empty_thought": "empty think block",
    "no_answer": "no answer after the thoughts",
    "text_before": "text before the first think block",
    "lone_close": "closing tag without an opening one",
    "nested": "think block inside a think block",
    "tags_in_code": "think tags in code",
    "windows_lines": "Windows line ends",
    "odd_lines": "U+2028, U+2029 or U+0085 as line ends",
    "damaged": "U+FFFD, a character that was lost",
    "repetition": "endless repetition",
}
assert list(SHAPES) == [field.name for field in fields(MalformedPolicy)]


class Shapes:
    """Decides by the policies, and remembers what was met."""

    def __init__(self, untidy: MalformedPolicy) -> None:
        self.untidy, self.notes = untidy, dict[str, None]()

    def met(self, shape: str) -> str:
        """The policy for a shape that the response has. Raises MalformedResponse where it is to be dropped."""
        policy: str = getattr(self.untidy, shape)
        if policy == "drop":
            raise MalformedResponse(f"{SHAPES[shape]} (data.untidy.{shape})")
        self.notes[f"{SHAPES[shape]} ({'repaired' if policy == 'repair' else 'kept'})"] = None
        return policy
