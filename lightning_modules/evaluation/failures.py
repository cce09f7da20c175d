"""How a response failed, beside a wrong answer: cut off, caught in a loop, malformed, or against its own thoughts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from datamodules.text.repetition import find_loop
from lightning_modules.generation.think_response import ThinkResponse
from lightning_modules.judge.conclusion import Conclusion, conclusion

LABELS = {
    "cut": "cut off",
    "cut_in_thought": "  inside a thought",
    "looped": "caught in a loop",
    "concluded": "answer in the thoughts",
    "contradicted": "  contradicted",
}  # of the figures in tables, in their order


class LoopPlace(NamedTuple):
    """Where a response repeats one text up to the end of a part of it."""

    part: str  # "the response", "the thinking" or "thought 2"
    start: int  # characters of the part before the loop
    repeated: str
    times: int


@dataclass(frozen=True)
class Failures:
    """What a response has of each failure. Several may hold of one response."""

    cut: bool  # it reached the limit of its length without an end token
    cut_in_thought: bool
    looped: bool
    loop: LoopPlace | None  # None also if the control of thinking ended the loop
    malformed: bool  # it ended, and its thinking is not well-formed
    conclusion: Conclusion | None  # of the thoughts of a well-formed response

    @property
    def contradicted(self) -> bool:
        """Whether the answer in the thoughts and the answer is another one."""
        return self.conclusion is not None and self.conclusion.contradicted

    def marks(self) -> dict[str, bool]:
        """Return the failures by the names of their figures."""
        return {
            "cut": self.cut,
            "cut_in_thought": self.cut_in_thought,
            "looped": self.looped,
            "concluded": self.conclusion is not None,
            "contradicted": self.contradicted,
        }


def failures_of(written: ThinkResponse) -> Failures:
    """Return how a response failed."""
    loop = _find_loop(written)
    return Failures(
        cut=not written.finished,
        cut_in_thought=not written.finished and written.in_thought,
        looped=loop is not None or written.cut == "loop",
        loop=loop,
        malformed=written.finished and not written.well_formed,
        conclusion=conclusion("\n".join(written.thoughts), written.answer) if written.well_formed else None,
    )


def ratios(marks: Sequence[dict[str, bool]]) -> dict[str, float]:
    """Return the ratio of responses with each mark, from 0 to 1; empty for no responses."""
    return {name: sum(one[name] for one in marks) / len(marks) for name in LABELS} if marks else {}


def _find_loop(written: ThinkResponse) -> LoopPlace | None:
    """A loop ends with the response, with all of its thinking, or with one thought."""
    thinking = written.text.removesuffix(written.answer) if written.thoughts else ""
    parts = {"the response": written.text, "the thinking": thinking}
    parts |= {f"thought {number}": text for number, text in enumerate(written.thoughts, 1)}
    for part, text in parts.items():
        if (found := find_loop(text)) is not None:
            return LoopPlace(part, found.start, found.repeated, found.times)
    return None
