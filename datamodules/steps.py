"""Split a thought into steps: sentences, but never inside a number, an abbreviation, a list marker, code or LaTeX.

    "Subtract 3: 2x = 4. Divide by 2: x = 2."  ->  ["Subtract 3: 2x = 4.", "Divide by 2: x = 2."]

Nothing is lost: the steps joined are the thought again, white space at their ends aside.
"""

import re
from collections.abc import Iterator
from itertools import pairwise

# Openers of what must stay whole, and what ends it. None: the text that opened it, again.
WHOLE = {
    "```": None, "`": None, "$$": None, "$": None, r"\[": r"\]", r"\(": r"\)", "(": ")", "[": "]", r"\begin{": r"\end{",
    "http://": "", "https://": "",
}  # fmt: skip
URL = re.compile(r"\S*")
OPENER = re.compile("|".join(map(re.escape, sorted(WHOLE, key=len, reverse=True))))
# An opener without its end within so many characters is text. It bounds the cost on text full of lone openers.
REACH = {"```": 20_000, r"\[": 4_000, r"\begin{": 4_000, "$$": 4_000}
REACH_IN_LINE = 400

ENDING = re.compile(
    r"(?P<cjk>[。！？]+[”’」』）]*)"  # full stops that need no space after them
    r"|(?P<stop>[.!?…]+[\"'”’)\]*_]*)(?=\s)"
    r"|(?P<blank>\n[ \t\r]*\n\s*)"  # an empty line
    r"|(?P<line>\n)"
)
ABBREVIATIONS = frozenset(
    "e.g i.e cf vs viz approx resp dr mr mrs ms prof st jr sr inc ltd dept al a.m p.m u.s u.k".split()
)
BEFORE_A_NUMBER = frozenset(
    "no nos fig figs eq eqs sec ch vol pp thm def prop lem cor ex".split()
)  # "No. 5", but "no."
LAST_WORD = re.compile(r"[^\s(\[\"'“‘]*$")
NEXT_WORD = re.compile(r"\s*([^\W\d_]+|\S|)")
OPERATORS = frozenset("=+-−*/×÷·<>≤≥≠≈^%&|,;:)]}→")  # "3! = 6" goes on
# What a sentence starts with after an "option D."; another capitalised word makes the letter an initial ("J. Smith").
STARTERS = frozenset(
    "a actually additionally after again all also alternatively an and another are as at because both but by each "
    "either first finally for from given hence here hmm how however i if in is it its let looking maybe my next no "
    "not now of oh ok okay on only or other our perhaps second similarly since so some that the their then there "
    "therefore these they third this those thus to wait we what when where which while who why with yes you".split()
)
LIST_MARKER = re.compile(r"[ \t]*(?:[-*•–+]|#{1,6}|\(?(?:\d{1,3}|[A-Za-z]|[ivxIVX]{1,4})[.)])(?:[ \t]|$)")
# A line that begins like this is one of its own, though in lower case: an item of a list, or an equation
NEW_LINE = re.compile(rf"{LIST_MARKER.pattern}|[ \t]*[a-z]\s*[=+\-−*/^_(<>≤≥≠]")


def whole_spans(text: str) -> Iterator[tuple[int, int]]:
    """(start, end) of the code, LaTeX, brackets and URLs in the text, in order, none inside another."""
    at = 0
    none_before: dict[str, int] = {}  # closer -> there is none between here and that place: keeps the scan linear
    while match := OPENER.search(text, at):
        opener, start = match[0], match.start()
        at = match.end()
        if WHOLE[opener] == "":  # a URL ends at white space; the stop after it is the sentence's
            at = start + len(URL.match(text, start)[0].rstrip(".,;:!?)"))  # type: ignore[index]
            yield start, at
            continue
        closer = WHOLE[opener] or opener
        limit = at + REACH.get(opener, REACH_IN_LINE)
        end = text.find(closer, max(at, none_before.get(closer, 0)), limit)
        if end < 0:
            none_before[closer] = limit - len(closer)
            continue
        if opener not in REACH and text.find("\n", at, end) >= 0:
            continue
        if opener == "$" and (text[at].isspace() or text[end - 1].isspace() or text[end + 1 : end + 2].isdigit()):
            continue  # prices, by pandoc's rule for inline mathematics
        at = end + len(closer)
        yield start, at


def _ends_sentence(text: str, start: int, match: re.Match[str]) -> bool:
    """Whether the stop of this match ends the sentence that began at `start`."""
    following = NEXT_WORD.match(text, match.end())[1]  # type: ignore[index]
    if following[:1].islower() or following in OPERATORS:
        return False
    before = LAST_WORD.search(text, max(start, match.start() - 40), match.start())
    word = before[0] if before else ""
    if match[0] == "!" and following == "(" and word[-1:].isdigit():
        return False  # 2! (for the others)
    if not match[0].startswith(".") or match[0].startswith(".."):
        return True
    if word.lower() in ABBREVIATIONS or (word.lower() in BEFORE_A_NUMBER and following.isdigit()):
        return False
    if len(word) == 1 and word.isupper() and following[:1].isupper() and following.lower() not in STARTERS:
        return False
    line = max(text.rfind("\n", start, match.start()) + 1, start)
    return not LIST_MARKER.fullmatch(text[line : match.start() + 1] + " ")


def boundaries(text: str) -> Iterator[int]:
    """The places where a step ends, in order; the end of the text is not among them."""
    spans = list(whole_spans(text))
    span = 0
    start = 0
    for match in ENDING.finditer(text):
        at = match.start()
        while span < len(spans) and spans[span][1] <= at:
            span += 1
        if span < len(spans) and spans[span][0] <= at:
            continue
        if match["cjk"]:
            ends = True
        elif match["stop"]:
            ends = _ends_sentence(text, start, match)
        else:
            # A line that ends in a colon leads into what follows it, and stays with it.
            led_into = text[max(start, at - 20) : at].rstrip().endswith((":", "："))
            if match["blank"]:
                ends = not led_into
            else:
                following = text[match.end() : match.end() + 1]
                ends = not led_into and (bool(NEW_LINE.match(text, match.end())) or not following.islower())
        if ends and not text[start : match.end()].isspace():
            yield match.end()
            start = match.end()


def split_steps(thought: str) -> list[str]:
    """The steps of a thought, in order, each without white space at its ends; none is empty."""
    cuts = [0, *boundaries(thought), len(thought)]
    return [step for a, b in pairwise(cuts) if (step := thought[a:b].strip())]
