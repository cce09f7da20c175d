"""Split a thought into steps: sentences, paragraphs, or turns; never inside code, LaTeX, a quotation or brackets.

    "Subtract 3: 2x = 4. Divide by 2: x = 2."  ->  ["Subtract 3: 2x = 4.", "Divide by 2: x = 2."]

Nothing is lost: the steps joined are the thought again, white space between them aside. `python benchmarks/steps.py`
measures speed, and precision and recall against hand-labelled traces, beside other sentence splitters.
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
Span = tuple[int, int]  # start and end in the thought

# The words with which R1 turns back on what it said: doubts it, checks it, or tries another way
MARKERS: tuple[str, ...] = (
    "Wait", "But wait", "Oh wait", "No, wait", "Hmm", "Hold on", "But hold on", "Actually", "But no", "But maybe",
    "On second thought", "Alternatively", "Another way", "Another approach", "Let me check", "Let me double-check",
    "Let me verify", "Let me confirm", "Let me see if", "Let me think again", "Let me recalculate", "Let me recheck",
    "Let me re-examine", "Let me reconsider", "Let me rethink", "Let's check", "Let's verify", "Let's double-check",
    "To double-check", "Just to make sure", "Just to be sure", "But just to", "But let me", "But let's check",
)  # fmt: skip


@dataclass
class StepSettings:
    """How a thought is split into steps, each of which gets a think block of its own."""

    split: StepMode = "sentence"
    """Where a step ends: `none` keeps a thought whole and as it is, `sentence`, `paragraph` splits at empty lines as R1
    writes them, `marker` starts a step where the thought turns (see `markers`)."""
    min_chars: int = 0
    """A step of fewer characters is joined to the next one, a short last one to the one before it."""
    max_steps: int | None = None
    """If a thought has more steps, they are joined to that many of about the same length."""
    markers: list[str] = field(default_factory=lambda: list(MARKERS))
    """For `split: marker`: a sentence or line that begins with one of these starts a step. Case counts."""

    def check(self) -> None:
        """Raises UserError for what cannot work."""
        if self.split not in get_args(StepMode):
            raise UserError("data.steps.split", self.split, "is no mode", f"one of {', '.join(get_args(StepMode))}")
        if self.min_chars < 0:
            raise UserError("data.steps.min_chars", self.min_chars, "is less than 0", "0 joins no steps")
        if self.max_steps is not None and self.max_steps < 1:
            raise UserError("data.steps.max_steps", self.max_steps, "is less than 1", "null sets no limit")
        if self.split == "marker" and not self.markers:
            raise UserError("data.steps.markers", None, "split: marker needs markers", "leave it out for R1's own")
        if any(not marker.strip() for marker in self.markers):
            raise UserError("data.steps.markers", None, "one of the markers is empty", "leave that one out")


# What must stay whole. A named group opens one whose end is looked for, which may be lines away; the others match in
# full, in a line and about REACH characters. Brackets and quotations without a stop are passed over.
REACH = 400
PLAIN = r"[^()\[\]\"“”`$\\.!?…。！？\n]*"  # a run without stops and openers: short, however much text there is
WHOLE = re.compile(
    r"`(?:(?P<fence>``)|[^`\n]{1,REACH}`)"
    r"|\$(?:(?P<display>\$)|(?!\s)[^$\n]{1,REACH}(?<!\s)\$(?!\d))"  # prices are not LaTeX, by pandoc's rule
    r"|\\(?:(?P<bracket>\[)|(?P<begin>begin\{)|(?P<inline>\())"
    r"|\((?!PLAIN\))(?:[^()\n]|\([^()\n]*\)){0,REACH}\)"
    r"|\[(?!PLAIN\])[^\[\]\n]{0,REACH}\]"
    r"|\"(?<![^\s(\[]\")(?!PLAIN\")[^\s\"][^\"\n]{0,REACH}\"(?!\w)"
    r"|“(?!PLAIN”)[^“”\n]{0,REACH}”".replace("REACH", str(REACH)).replace("PLAIN", PLAIN)
)
# What ends those, and within how many characters; without that end it is text, in linear time.
LONG = {
    "fence": ("```", 20_000), "display": ("$$", 4_000), "bracket": (r"\]", 4_000), "begin": (r"\end{", 4_000),
    "inline": (r"\)", REACH + 2),
}  # fmt: skip

# A stop that plainly ends a sentence, if white space and a capital follow: after a word of three letters or more that
# is no abbreviation, a number within a line, a bracket, or a "?". Most do, and need no second look.
SURE = (
    r"(?:(?<=[a-z]{3}\.)(?<!rof\.|ept\.|rox\.|esp\.|viz\.|inc\.|ltd\.)(?<![ivx]{3}\.)"
    r"|(?<=[a-z=] \d\.)|(?<=[a-z=] \d\d\.)|(?<=\)\.)|(?<=\?))"
)
# White space that follows is part of a match; the empty groups tell the kind and where the step ends. The first
# character stands before the alternatives so that `re` looks for one of a set of characters, which is fast.
ENDING = re.compile(
    rf"[.!?…。！？\n](?:{SURE}(?P<sure>)\s+(?=[A-Z])"
    r"|(?<=[.!?…])[.!?…]*[\"'”’)\]*_]*(?P<stop>)\s+"
    r"|(?<=\n)(?P<line>)\s*"
    r"|(?<=[。！？])[。！？]*[”’」』）]*(?P<cjk>)\s*)"  # these need no space after them
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
OPERATORS = frozenset("=+-−*/×÷·<>≤≥≠≈^%&|,;:)]}→—")  # "3! = 6" goes on
# What a sentence starts with after "option D." or "(colour?)"; another capitalised word goes on: "J. Smith".
STARTERS = frozenset(
    "a actually additionally after again all also alternatively an and another are as at because both but by each "
    "either first finally for from given hence here hmm how however i if in is it its let looking maybe my next no "
    "not now of oh ok okay on only or other our perhaps second similarly since so some that the their then there "
    "therefore these they third this those thus to wait we what when where which while who why with yes you".split()
)
LIST_MARKER = re.compile(r"[ \t]*(?:[-*•–+]|#{1,6}|\(?(?:\d{1,3}|[A-Za-z]|[ivxIVX]{1,4})[.)])(?:[ \t]|$)")
# A line that begins like this is one of its own, though in lower case: an item of a list, or an equation
NEW_LINE = re.compile(rf"{LIST_MARKER.pattern}|[a-z]\d*\s*[=+\-−*/^_(<>≤≥≠]")


def whole_spans(text: str) -> Iterator[Span]:
    """(start, end) of the code, LaTeX, quotations and brackets that a stop or a line break stands in, in order."""
    at = 0
    none_before: dict[str, int] = {}  # closer -> there is none between here and that place: keeps the scan linear
    while match := WHOLE.search(text, at):
        start, at = match.span()
        if match.lastgroup:
            closer, reach = LONG[match.lastgroup]
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
    """Whether the stop at `at`, in the sentence that began at `start`, ends it; the text goes on at `after`."""
    following = text[after : after + 1]
    if following.islower() or following in OPERATORS:
        return False
    if text[at] == "!" and following == "(" and text[at - 1 : at].isdigit():
        return False  # 2! (for the others)
    if text[at] in "?!" and text[at + 1] == ")":
        return _starts_sentence(text, after)  # "red (colour?) Mexican hat" goes on
    if text[at] != "." or text[at + 1] in ".!?…":
        return True
    words = text[max(start, at - 40) : at].rsplit(None, 1)
    word = words[-1].lstrip("([\"'“‘") if words else ""
    if word.lower() in ABBREVIATIONS or (word.lower() in BEFORE_A_NUMBER and following.isdigit()):
        return False
    if len(word) == 1 and word.isupper() and following.isupper():
        return _starts_sentence(text, after)
    line = max(text.rfind("\n", start, at) + 1, start)
    return not LIST_MARKER.fullmatch(text[line : at + 1])


def _ends_line(text: str, start: int, at: int, after: int) -> bool:
    """Whether the line break at `at` ends a step. A line that ends in a colon stays with what it leads into."""
    if text[max(start, at - 20) : at].rstrip(" \t\r*_").endswith((":", "：")):
        return False
    return not text[after : after + 1].islower() or text.count("\n", at, after) > 1 or bool(NEW_LINE.match(text, after))


def _sentences(text: str, spans: Sequence[Span]) -> Iterator[Span]:
    """(end, start of the next) at each place where a sentence ends; the end of the text is not among them."""
    start = span_start = span_end = 0
    later = chain(spans, repeat((len(text), len(text) + 1)))
    for match in ENDING.finditer(text):
        at, after = match.span()
        kind = match.lastindex  # by number, which is faster
        end = at if kind == LINE else match.start(kind)  # type: ignore[arg-type]
        if span_end <= at:
            span_start, span_end = next(later)
            while span_end <= at:
                span_start, span_end = next(later)
        if span_start <= at and (kind == LINE or end < span_end):
            continue  # inside; but the stop before a closing quote or bracket may end more than the quotation
        if kind == STOP:
            if not _ends_sentence(text, start, at, after) and not (
                "\n" in match[0] and _ends_line(text, start, end, after)
            ):
                continue
        elif kind == LINE and not _ends_line(text, start, at, after):
            continue
        yield end, after
        start = after


def _paragraphs(text: str, spans: Sequence[Span]) -> Iterator[Span]:
    span_start = span_end = 0
    later = chain(spans, repeat((len(text), len(text) + 1)))
    for match in PARAGRAPH.finditer(text):
        while span_end <= match.start():
            span_start, span_end = next(later)
        if match.start() < span_start:
            yield match.span()


@lru_cache
def _turning(markers: tuple[str, ...]) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """A pattern for a marker, and one for a marker at the beginning of a line."""
    words = rf"(?:{'|'.join(map(re.escape, markers))})(?!\w)"
    return re.compile(words), re.compile(rf"\n\s*(?={words})")


def _turns(text: str, spans: Sequence[Span], markers: Sequence[str]) -> Iterator[Span]:
    marker, on_a_line = _turning(tuple(markers))
    turns = {after: end for end, after in _sentences(text, spans) if marker.match(text, after)}
    for match in on_a_line.finditer(text):  # also after a colon, where no sentence ends
        at, after = match.span()
        i = bisect_left(spans, (after, after)) - 1
        if i < 0 or spans[i][1] <= at:
            turns.setdefault(after, at)
    yield from ((end, after) for after, end in sorted(turns.items()))


def _join_short(steps: list[Span], min_chars: int) -> list[Span]:
    joined: list[Span] = []
    for start, end in steps:
        if joined and joined[-1][1] - joined[-1][0] < min_chars:
            joined[-1] = joined[-1][0], end
        else:
            joined.append((start, end))
    if len(joined) > 1 and joined[-1][1] - joined[-1][0] < min_chars:
        _, end = joined.pop()
        joined[-1] = joined[-1][0], end
    return joined


def _join_to(steps: list[Span], count: int) -> list[Span]:
    """That many steps: each cut is the one nearest to where equal parts would end, and leaves none without a step."""
    first, ends = steps[0][0], [end for _, end in steps]
    cuts = [0]
    for part in range(1, count):
        target = first + (ends[-1] - first) * part / count
        i = bisect_left(ends, target)
        i += i == 0 or ends[i] - target < target - ends[i - 1]  # `i` steps lie before the cut
        cuts.append(min(max(i, cuts[-1] + 1), len(steps) - count + part))
    return [(steps[a][0], steps[b - 1][1]) for a, b in zip(cuts, [*cuts[1:], len(steps)], strict=True)]


def step_spans(thought: str, settings: StepSettings = StepSettings()) -> list[Span]:  # noqa: B008 (never changed)
    """(start, end) of each step in the thought, in order, without white space at its ends; none is empty.

    `split: none` is the exception: one span, the thought as it is, be it empty.
    """
    if settings.split == "none":
        return [(0, len(thought))]
    spans = list(whole_spans(thought))
    if settings.split == "sentence":
        cuts = _sentences(thought, spans)
    elif settings.split == "paragraph":
        cuts = _paragraphs(thought, spans)
    else:
        cuts = _turns(thought, spans, settings.markers)
    steps: list[Span] = []
    start = len(thought) - len(thought.lstrip())
    for end, after in [*cuts, (len(thought), len(thought))]:
        if step := thought[start:end].rstrip():
            steps.append((start, start + len(step)))
        start = after
    if settings.min_chars > 0:
        steps = _join_short(steps, settings.min_chars)
    return (
        steps if settings.max_steps is None or len(steps) <= settings.max_steps else _join_to(steps, settings.max_steps)
    )


def split_steps(thought: str, settings: StepSettings = StepSettings()) -> list[str]:  # noqa: B008 (never changed)
    """The steps of a thought, in order; see `step_spans`."""
    return [thought[start:end] for start, end in step_spans(thought, settings)]
