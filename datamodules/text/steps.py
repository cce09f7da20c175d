"""Split a thought into steps: sentences, paragraphs, or turns. Code, LaTeX, quotations and brackets are never split.

    "Subtract 3: 2x = 4. Divide by 2: x = 2."  ->  ["Subtract 3: 2x = 4.", "Divide by 2: x = 2."]

The joined steps equal the thought, except for the white space between steps. `python -m benchmarks.steps` compares
speed, precision and recall with other sentence splitters on hand-labelled traces.
"""

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain, repeat
from typing import Literal, get_args

from errors import UserError

StepMode = Literal["none", "sentence", "paragraph", "marker"]
Span = tuple[int, int]  # start and end offset in the thought

# R1 uses these words to doubt or check its last statement, or to try another way
MARKERS: tuple[str, ...] = (
    "Wait", "But wait", "Oh wait", "No, wait", "Hmm", "Hold on", "But hold on", "Actually", "But no", "But maybe",
    "On second thought", "Alternatively", "Another way", "Another approach", "Let me check", "Let me double-check",
    "Let me verify", "Let me confirm", "Let me see if", "Let me think again", "Let me recalculate", "Let me recheck",
    "Let me re-examine", "Let me reconsider", "Let me rethink", "Let's check", "Let's verify", "Let's double-check",
    "To double-check", "Just to make sure", "Just to be sure", "But just to", "But let me", "But let's check",
)  # fmt: skip


@dataclass
class StepSettings:
    """How a thought is split into steps. Each step gets a think block of its own."""

    split: StepMode = "sentence"
    """Where a step ends. `none` keeps a thought as it is. `sentence` ends a step at the end of a sentence, `paragraph`
    at an empty line, as R1 separates steps. `marker` starts a step at each of `markers`."""
    markers: list[str] = field(default_factory=lambda: list(MARKERS))
    """For `split: marker`: a sentence or line that begins with one of these texts starts a step. Case-sensitive. The
    default lists R1's own turning words."""

    def check(self) -> None:
        """Raise UserError for values that cannot work."""
        if self.split not in get_args(StepMode):
            raise UserError("data.steps.split", self.split, "is not a mode", f"choose {', '.join(get_args(StepMode))}")
        if self.split == "marker" and not self.markers:
            fix = "delete the setting to use R1's own markers"
            raise UserError("data.steps.markers", None, "is empty, but data.steps.split is marker", fix)
        if any(not marker.strip() for marker in self.markers):
            raise UserError("data.steps.markers", None, "one of the markers is empty", "delete that marker")


# The texts that no step may split. A named group matches the opening of a text; its end may be lines away and is found
# by a search. The other alternatives match a whole text within a line and about REACH characters. Brackets and
# quotations without a stop need no protection.
REACH = 400
PLAIN = r"[^()\[\]\"“”`$\\.!?…。！？\n]*"  # no stops and no openers: always a short run
PROTECTED = re.compile(
    r"`(?:(?P<fence>``)|[^`\n]{1,REACH}`)"
    r"|\$(?:(?P<display>\$)|(?!\s)[^$\n]{1,REACH}(?<!\s)\$(?!\d))"  # pandoc's rule: prices are not LaTeX
    r"|\\(?:(?P<bracket>\[)|(?P<begin>begin\{)|(?P<inline>\())"
    r"|\((?!PLAIN\))(?:[^()\n]|\([^()\n]*\)){0,REACH}\)"
    r"|\[(?!PLAIN\])[^\[\]\n]{0,REACH}\]"
    r"|\"(?<![^\s(\[]\")(?!PLAIN\")[^\s\"][^\"\n]{0,REACH}\"(?!\w)"
    r"|“(?!PLAIN”)[^“”\n]{0,REACH}”".replace("REACH", str(REACH)).replace("PLAIN", PLAIN)
)
# For each named group: the closing text, and the number of characters in which it must follow. Otherwise the opening is
# ordinary text.
CLOSERS = {
    "fence": ("```", 20_000), "display": ("$$", 4_000), "bracket": (r"\]", 4_000), "begin": (r"\end{", 4_000),
    "inline": (r"\)", REACH + 2),
}  # fmt: skip

# A stop that certainly ends a sentence if white space and a capital follow: after a word of three letters or more that
# is not an abbreviation, after a number within a line, after a bracket, or a "?". Most stops are of this kind.
SURE = (
    r"(?:(?<=[a-z]{3}\.)(?<!rof\.|ept\.|rox\.|esp\.|viz\.|inc\.|ltd\.)(?<![ivx]{3}\.)"
    r"|(?<=[a-z=] \d\.)|(?<=[a-z=] \d\d\.)|(?<=\)\.)|(?<=\?))"
)
# A match includes the following white space. The empty groups give the kind of the stop and the end of the step. The
# first character stands before the alternatives so that `re` searches for one of a set of characters, which is fast.
ENDING = re.compile(
    rf"[.!?…。！？\n](?:{SURE}(?P<sure>)\s+(?=[A-Z])"
    r"|(?<=[.!?…])(?<![.!?…][.!?…])[.!?…]*[\"'”’)\]*_]*(?P<stop>)\s+"  # from the first of several stops
    r"|(?<=\n)(?P<line>)\s*"
    r"|(?<=[。！？])[。！？]*[”’」』）]*(?P<cjk>)\s*)"  # no space follows these
)
STOP, LINE = ENDING.groupindex["stop"], ENDING.groupindex["line"]
PARAGRAPH = re.compile(r"\n[ \t\r]*\n\s*")
ABBREVIATIONS = frozenset(
    "e.g i.e cf vs viz approx resp dr mr mrs ms prof st jr sr inc ltd dept al a.m p.m u.s u.k".split()
)
BEFORE_A_NUMBER = frozenset(
    "no nos fig figs eq eqs sec ch vol pp thm def prop lem cor ex".split()
)  # "No. 5", but "no."
NEXT_WORD = re.compile(r"[^\W\d_]*")
OPERATORS = frozenset("=+-−*/×÷·<>≤≥≠≈^%&|,;:)]}→—")  # "3! = 6" continues
# The words that start a sentence after "option D." or "(colour?)". Any other capitalised word continues the sentence:
# "J. Smith".
STARTERS = frozenset(
    "a actually additionally after again all also alternatively an and another are as at because both but by each "
    "either first finally for from given hence here hmm how however i if in is it its let looking maybe my next no "
    "not now of oh ok okay on only or other our perhaps second similarly since so some that the their then there "
    "therefore these they third this those thus to wait we what when where which while who why with yes you".split()
)
LIST_MARKER = re.compile(r"[ \t]*(?:[-*•–+]|#{1,6}|\(?(?:\d{1,3}|[A-Za-z]|[ivxIVX]{1,4})[.)])(?:[ \t]|$)")
LONGEST_LIST_MARKER = 60  # characters, with the white space before it
# A line with this beginning starts a step even in lower case: a list item or an equation
NEW_LINE = re.compile(rf"{LIST_MARKER.pattern}|[a-z]\d*\s*[=+\-−*/^_(<>≤≥≠]")


def protected_spans(text: str) -> Iterator[Span]:
    """Yield (start, end) of each code, LaTeX, quotation and bracket with a stop or line break inside, in order."""
    at = 0
    none_before: dict[str, int] = {}  # closer -> offset up to which there is none: keeps the scan linear
    while match := PROTECTED.search(text, at):
        start, at = match.span()
        if match.lastgroup:
            closer, reach = CLOSERS[match.lastgroup]
            end = text.find(closer, max(at, none_before.get(closer, 0)), at + reach)
            if end < 0:
                none_before[closer] = at + reach - len(closer)
                continue
            if match.lastgroup == "inline" and "\n" in text[at:end]:
                continue
            at = end + len(closer)
        yield start, at


def _starts_sentence(text: str, at: int) -> bool:
    return NEXT_WORD.match(text, at)[0].lower() in STARTERS  # type: ignore[index]


def _ends_sentence(text: str, start: int, at: int, after: int) -> bool:
    """Whether the stop at `at` ends the sentence that began at `start`. The next text begins at `after`."""
    following = text[after : after + 1]
    if following.islower() or following in OPERATORS:
        return False
    if text[at] == "!" and following == "(" and text[at - 1 : at].isdigit():
        return False  # "2! (for the others)"
    if text[at] in "?!" and text[at + 1] == ")":
        return _starts_sentence(text, after)  # "red (colour?) Mexican hat" continues
    if text[at] != "." or text[at + 1] in ".!?…":
        return True
    words = text[max(start, at - 40) : at].rsplit(None, 1)
    word = words[-1].lstrip("([\"'“‘") if words else ""
    if word.lower() in ABBREVIATIONS or (word.lower() in BEFORE_A_NUMBER and following.isdigit()):
        return False
    if len(word) == 1 and word.isupper() and following.isupper():
        return _starts_sentence(text, after)
    near = max(start, at - LONGEST_LIST_MARKER)
    line = text.rfind("\n", near, at) + 1 or (start if start == near else -1)
    return line < 0 or not LIST_MARKER.fullmatch(text[max(line, start) : at + 1])


def _ends_line(text: str, start: int, at: int, after: int) -> bool:
    """Whether the line break at `at` ends a step. A line that ends in a colon stays with the next line."""
    if text[max(start, at - 20) : at].rstrip(" \t\r*_").endswith((":", "：")):
        return False
    return not text[after : after + 1].islower() or text.count("\n", at, after) > 1 or bool(NEW_LINE.match(text, after))


def _sentences(text: str, protected: Sequence[Span]) -> Iterator[Span]:
    """Yield (end, start of the next sentence) for each sentence except the last."""
    start = span_start = span_end = 0
    later = chain(protected, repeat((len(text), len(text) + 1)))
    for match in ENDING.finditer(text):
        at, after = match.span()
        kind = match.lastindex  # the number of a group is faster than its name
        end = at if kind == LINE else match.start(kind)  # type: ignore[arg-type]
        if span_end <= at:
            span_start, span_end = next(later)
            while span_end <= at:
                span_start, span_end = next(later)
        if span_start <= at and (kind == LINE or end < span_end):
            continue  # inside, except a stop before the closing quote or bracket: it may end the whole sentence
        if kind == STOP:
            if not _ends_sentence(text, start, at, after) and not (
                "\n" in match[0] and _ends_line(text, start, end, after)
            ):
                continue
        elif kind == LINE and not _ends_line(text, start, at, after):
            continue
        yield end, after
        start = after


def _paragraphs(text: str, protected: Sequence[Span]) -> Iterator[Span]:
    """Yield (end, start of the next paragraph) for each empty line outside protected text."""
    span_start = span_end = 0
    later = chain(protected, repeat((len(text), len(text) + 1)))
    for match in PARAGRAPH.finditer(text):
        while span_end <= match.start():
            span_start, span_end = next(later)
        if match.start() < span_start:
            yield match.span()


@lru_cache
def _turning(markers: tuple[str, ...]) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """The pattern of a marker, and the pattern of a marker at the beginning of a line."""
    words = rf"(?:{'|'.join(map(re.escape, markers))})(?!\w)"
    # From the beginning of a run of white space, because a search from each of its lines would take quadratic time
    return re.compile(words), re.compile(rf"(?<!\s)[^\S\n]*+(?P<line>\n)\s*+(?={words})")


def _turns(text: str, protected: Sequence[Span], markers: Sequence[str]) -> Iterator[Span]:
    """Yield (end of a step, start of the next one) for each marker at the start of a sentence or line."""
    marker, on_a_line = _turning(tuple(markers))
    turns = {after: end for end, after in _sentences(text, protected) if marker.match(text, after)}
    for match in on_a_line.finditer(text):  # also after a colon, which ends no sentence
        at, after = match.start("line"), match.end()
        i = bisect_left(protected, (after, after)) - 1
        if i < 0 or protected[i][1] <= at:
            turns.setdefault(after, at)
    yield from ((end, after) for after, end in sorted(turns.items()))


def step_spans(thought: str, settings: StepSettings = StepSettings()) -> list[Span]:  # noqa: B008 (never changed)
    """Return (start, end) of each step of the thought, in order. No step is empty or has white space at its ends.

    `split: none` gives one span, the thought as it is, even if it is empty.
    """
    if settings.split == "none":
        return [(0, len(thought))]
    protected = list(protected_spans(thought))
    if settings.split == "sentence":
        cuts = _sentences(thought, protected)
    elif settings.split == "paragraph":
        cuts = _paragraphs(thought, protected)
    else:
        cuts = _turns(thought, protected, settings.markers)
    steps: list[Span] = []
    start = len(thought) - len(thought.lstrip())
    for end, after in [*cuts, (len(thought), len(thought))]:
        if step := thought[start:end].rstrip():
            steps.append((start, start + len(step)))
        start = after
    return steps


def split_steps(thought: str, settings: StepSettings = StepSettings()) -> list[str]:  # noqa: B008 (never changed)
    """Return the steps of a thought, in order."""
    return [thought[start:end] for start, end in step_spans(thought, settings)]
