"""Split a thought into steps: sentences, paragraphs, or turns. Code, LaTeX, quotations, tables and the like stay whole.

    "Subtract 3: 2x = 4. Divide by 2: x = 2."  ->  ["Subtract 3: 2x = 4.", "Divide by 2: x = 2."]

The joined steps equal the thought, except for the white space between steps. `python -m benchmarks.steps` compares
speed, precision and recall with other sentence splitters on hand-labelled traces.
"""

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, repeat
from typing import Literal, get_args

from datamodules.text.markers import MARKERS, turning
from datamodules.text.protected import Span, protected_spans
from datamodules.text.sentences import sentence_cuts
from errors import UserError

StepMode = Literal["none", "sentence", "paragraph", "marker"]


@dataclass
class StepSettings:
    """How a thought is split into steps. Each step gets a think block of its own."""

    split: StepMode = "sentence"
    """Where a step ends. `none` keeps a thought as it is. `sentence` ends a step at the end of a sentence, `paragraph`
    at an empty line, as R1 separates steps. `marker` starts a step at each of `markers`."""
    markers: list[str] = field(default_factory=lambda: list(MARKERS))
    """For `split: marker`: a sentence or line that begins with one of these texts starts a step. Case-sensitive. The
    default lists R1's own turning words, and such words in Chinese, Japanese, German, French, Spanish, Vietnamese and
    Arabic."""

    def check(self) -> None:
        """Raise UserError for values that cannot work."""
        if self.split not in get_args(StepMode):
            raise UserError("data.steps.split", self.split, "is not a mode", f"choose {', '.join(get_args(StepMode))}")
        if self.split == "marker" and not self.markers:
            fix = "delete the setting to use the default markers"
            raise UserError("data.steps.markers", None, "is empty, but data.steps.split is marker", fix)
        if any(not marker.strip() for marker in self.markers):
            raise UserError("data.steps.markers", None, "one of the markers is empty", "delete that marker")


PARAGRAPH = re.compile(r"\n[^\S\n]*\n\s*")  # a line of U+3000 or no-break spaces is empty, too
LINE_BREAKS = re.compile(r"\n\s*")
LETTER_OR_DIGIT = re.compile(r"[^\W_]")
OPENINGS = frozenset("([{<「『（【《〈«‹„“‘")  # such a piece belongs to the text after it


def _paragraphs(text: str, protected: Sequence[Span]) -> Iterator[Span]:
    """Yield (end, start of the next paragraph) for each empty line outside protected text."""
    span_start = span_end = 0
    later = chain(protected, repeat((len(text), len(text) + 1)))
    for match in PARAGRAPH.finditer(text):
        while span_end <= match.start():
            span_start, span_end = next(later)
        if match.start() < span_start:
            yield match.span()


def _turns(thought: str, protected: Sequence[Span], markers: Sequence[str]) -> Iterator[Span]:
    """Yield (end of a step, start of the next one) for each marker at the start of a sentence or line."""
    patterns = turning(tuple(markers))

    def turns_at(at: int) -> bool:
        pattern = patterns.get(thought[at : at + 1])
        return pattern is not None and pattern.match(thought, at) is not None

    turns = {after: end for end, after in sentence_cuts(thought, protected) if turns_at(after)}
    for match in LINE_BREAKS.finditer(thought):  # also after a colon, which ends no sentence
        at, after = match.span()
        if turns_at(after):
            i = bisect_left(protected, (after, after)) - 1
            if i < 0 or protected[i][1] <= at:
                turns.setdefault(after, at)
    yield from ((end, after) for after, end in sorted(turns.items()))


def _with_words(thought: str, cuts: Iterable[Span]) -> list[Span]:
    """Return the texts between the cuts, without white space at their ends. A text without a letter or digit joins the
    one before it; an opening, or the first text, joins the next."""
    steps: list[Span] = []
    start = len(thought) - len(thought.lstrip())
    opening = -1  # the start of texts that wait for the next one
    for end, after in chain(cuts, [(len(thought), len(thought))]):
        if start < end:
            if thought[end - 1].isspace():
                end = start + len(thought[start:end].rstrip())
            if opening < 0 and thought[start].isalnum():
                steps.append((start, end))  # almost all
            elif LETTER_OR_DIGIT.search(thought, start, end):
                steps.append((start if opening < 0 else opening, end))
                opening = -1
            elif opening < 0 and steps and thought[end - 1] not in OPENINGS:
                steps[-1] = steps[-1][0], end
            elif opening < 0:
                opening = start
        start = after
    if opening >= 0:  # nothing came
        steps.append((steps.pop()[0] if steps else opening, len(thought.rstrip())))
    return steps


def step_spans(thought: str, settings: StepSettings = StepSettings()) -> list[Span]:  # noqa: B008 (never changed)
    """Return (start, end) of each step of the thought, in order.

    No step is empty, has white space at its ends, or is without a letter or digit unless the whole thought is.
    `split: none` gives one span, the thought as it is, even if it is empty.
    """
    if settings.split == "none":
        return [(0, len(thought))]
    protected = list(protected_spans(thought))
    if settings.split == "sentence":
        cuts = sentence_cuts(thought, protected)
    elif settings.split == "paragraph":
        cuts = _paragraphs(thought, protected)
    else:
        cuts = _turns(thought, protected, settings.markers)
    return _with_words(thought, cuts)


def split_steps(thought: str, settings: StepSettings = StepSettings()) -> list[str]:  # noqa: B008 (never changed)
    """Return the steps of a thought, in order."""
    return [thought[start:end] for start, end in step_spans(thought, settings)]
