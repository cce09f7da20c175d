"""A response taken apart into thoughts and the text around them. No character is lost.

    "<think>\\nA. B.\\n</think>\\n\\nx = 7"  ->  Passage("\\nA. B.\\n", thought), Passage("\\n\\nx = 7", text)

`malformed` names the shapes of real responses that are not blocks followed by an answer, and the actions for them.
"""

import re
import zlib
from functools import cache
from typing import NamedTuple

from datamodules.text.malformed import MalformedPolicy, MalformedResponse, ShapesFound
from datamodules.text.tags import Tags

WINDOW = 8_192  # bytes of UTF-8 that are compressed at once
# Compressed size of a window, as a part of WINDOW. A text of up to 800 characters that repeats stays below 0.08;
# 1,501 real R1 answers are all at 0.17 or above.
REPETITION_RATIO = 0.08
# Marks that open or close code: a fence at the beginning of a line (bare if nothing follows), or backticks in a line
CODE_MARK = re.compile(r"^[ \t]*(?P<fence>`{3,}|~{3,})(?P<bare>[ \t\r]*$)?|`+", re.MULTILINE)
ODD_LINE_ENDS = "\u2028\u2029\x85"  # editors, JSONL readers and models disagree about these
SURROGATES = re.compile("[\ud800-\udfff]")


class Passage(NamedTuple):
    """A thought without its tags, or the text between two thoughts."""

    text: str
    thought: bool


def parse(
    response: str,
    tags: Tags = Tags(),  # noqa: B008 (frozen)
    policy: MalformedPolicy = MalformedPolicy(),  # noqa: B008 (never changed)
) -> tuple[tuple[Passage, ...], tuple[str, ...]]:
    """Return the passages of a response, and a note for each malformed shape.

    `unparse` of the passages is the response, byte for byte if no shape was repaired. Tags in code are text if the
    remaining tags are well-formed. Otherwise, as with a code fence that a thought left open, all tags count.

    Raises MalformedResponse for an empty response and for a shape that `policy` drops.
    """
    if not response.strip():
        raise MalformedResponse("empty response")
    if SURROGATES.search(response):
        raise MalformedResponse("not valid UTF-8")
    shapes = ShapesFound(policy)
    response = _check_characters(response, shapes)
    if _repeats(response):
        shapes.handle("repetition")
    split = _tag_pattern(tags).split(response)
    if "`" in response or "~~~" in response:
        outside_code = _split_outside_code(response, tags)
        if len(outside_code) < len(split) and _well_formed(outside_code, tags):
            shapes.handle("tags_in_code")
            split = outside_code
    passages = _passages(split, tags, shapes)
    return passages, shapes.notes


def unparse(passages: tuple[Passage, ...], tags: Tags = Tags()) -> str:  # noqa: B008
    """Return the response that these passages came from."""
    return "".join(f"{tags.open}{text}{tags.close}" if thought else text for text, thought in passages)


def _check_characters(response: str, shapes: ShapesFound) -> str:
    """The response, with repaired line ends if the policy repairs them."""
    if "\r\n" in response and shapes.handle("windows_lines") == "repair":
        response = response.replace("\r\n", "\n")
    if not response.isascii():
        if any(end in response for end in ODD_LINE_ENDS) and shapes.handle("odd_lines") == "repair":
            response = response.translate(dict.fromkeys(map(ord, ODD_LINE_ENDS), "\n"))
        if "\ufffd" in response:
            shapes.handle("damaged")
    return response


def _repeats(text: str) -> bool:
    """Whether a window of the text repeats itself. Such a window compresses to almost nothing."""
    if len(text) < WINDOW:
        return False
    data = text.encode()
    return any(
        len(zlib.compress(data[start : start + WINDOW], 1)) < REPETITION_RATIO * WINDOW
        for start in range(0, len(data) - WINDOW + 1, WINDOW // 2)
    )


@cache
def _tag_pattern(tags: Tags) -> re.Pattern[str]:
    return re.compile(f"({re.escape(tags.open)}|{re.escape(tags.close)})")


def _split_outside_code(response: str, tags: Tags) -> list[str]:
    """The response split at the tags outside code: text, tag, text, tag, …, text."""
    code = _code(response)
    split, at, k = [], 0, 0
    for match in _tag_pattern(tags).finditer(response):
        while k < len(code) and code[k][1] <= match.start():
            k += 1
        if k < len(code) and code[k][0] <= match.start():
            continue
        split += [response[at : match.start()], match[0]]
        at = match.end()
    return [*split, response[at:]]


def _code(text: str) -> list[tuple[int, int]]:
    """(start, end) of each closed code fence and of each text between backticks in a line, in order. Linear time."""
    marks: list[tuple[re.Match[str], str, int]] = []  # the match, its characters, its line number
    line = at = 0
    for match in CODE_MARK.finditer(text):
        line += text.count("\n", at, match.start())
        at = match.start()
        marks.append((match, match["fence"] or match[0], line))
    closing = [0] * len(marks)  # index of the mark that closes each mark; 0 for a mark that opens nothing
    later: dict[tuple[str, int | None], int] = {}  # the nearest following mark, by line; None for bare fences
    for i, (match, run, line) in reversed(list(enumerate(marks))):
        closing[i] = (later.get((run, None), 0) if match["fence"] else 0) or later.get((run, line), 0)
        later[run, line] = i
        if match["bare"] is not None:
            later[run, None] = i
    code, i = [], 0
    while i < len(marks):
        if closing[i]:
            code.append((marks[i][0].start(), marks[closing[i]][0].end()))
        i = max(i, closing[i]) + 1
    return code


def _well_formed(split: list[str], tags: Tags) -> bool:
    """Whether opening and closing tags alternate and text comes last. The first opening tag may be missing."""
    opens = [tag == tags.open for tag in split[1::2]]
    opens = opens[1:] if opens[:1] == [False] else opens
    return opens == [True, False] * (len(opens) // 2) and bool(split[-1].strip())


def _passages(split: list[str], tags: Tags, shapes: ShapesFound) -> tuple[Passage, ...]:
    """The passages of text, tag, text, tag, …, text."""
    if len(split) == 1:
        shapes.handle("no_thought")
        return (Passage(split[0], thought=False),)
    if split[1] == tags.close:
        shapes.handle("missing_open")
        split = ["", tags.open, *split]
    if split[0].strip() and shapes.handle("text_before") == "repair":
        split = ["", split[1], split[0] + split[2], *split[3:]]
    passages: list[Passage] = []
    text, depth = split[0], 0
    for tag, following in zip(split[1::2], split[2::2], strict=True):
        opens = tag == tags.open
        if (opens and depth == 0) or (not opens and depth == 1):
            passages.append(Passage(text, thought=not opens))
            text = following
        else:  # a nested tag or a lone closing tag
            text += (tag if shapes.handle("nested" if depth else "lone_close") == "keep" else "") + following
        depth = max(depth + (1 if opens else -1), 0)
    passages.append(Passage(text, thought=depth > 0))
    if depth:
        shapes.handle("unclosed")
    passages = _without_empty(passages, shapes)
    if not passages or passages[-1].thought or not passages[-1].text.strip():
        shapes.handle("no_answer")
    if not any(thought or text.strip() for text, thought in passages):
        raise MalformedResponse("no text left after repairs")
    return tuple(passages)


def _without_empty(passages: list[Passage], shapes: ShapesFound) -> list[Passage]:
    """The passages without empty texts and, if the policy repairs them, without empty thoughts."""
    kept: list[Passage] = []
    for passage in passages:
        if passage.thought and not passage.text.strip() and shapes.handle("empty_thought") == "repair":
            continue
        if not passage.text and not passage.thought:
            continue
        if kept and not passage.thought and not kept[-1].thought:  # the texts around a deleted block become one
            passage = Passage(kept.pop().text + passage.text, thought=False)
        kept.append(passage)
    return kept
