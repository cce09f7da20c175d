"""A response taken apart into thoughts and the text around them. No character is lost.

    "<think>\\nA. B.\\n</think>\\n\\nx = 7"  ->  Passage("\\nA. B.\\n", thought), Passage("\\n\\nx = 7", text)

`malformed` names the shapes of real responses that are not blocks followed by an answer, and the actions for them.
"""

import re
from collections.abc import Sequence
from itertools import chain, groupby
from typing import NamedTuple

from datamodules.text.blank import EDGE, ZERO_WIDTH, is_blank, without_zero_width
from datamodules.text.code import split_at_tags
from datamodules.text.malformed import WRAPPERS, Fault, MalformedPolicy, MalformedResponse, ShapesFound
from datamodules.text.repetition import find_repetition
from datamodules.text.tags import Tags
from visible import SURROGATES

ODD_LINE_ENDS = re.compile("[\u2028\u2029\x85]")  # editors, JSONL readers and models disagree about these


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

    `unparse` of the passages is the response, byte for byte if no shape was repaired. Which tags in code are text is
    decided by `split_at_tags`.

    Raises MalformedResponse for an empty response, and for shapes that `policy` drops: it names all that a reading by
    the dial `keep` finds.
    """
    if is_blank(response):
        raise MalformedResponse("empty response")
    if surrogate := SURROGATES.search(response):
        raise MalformedResponse(Fault("not valid UTF-8", surrogate.start()))
    shapes = ShapesFound(policy)
    given, response = response, _check_characters(response, shapes)
    if (at := find_repetition(response)) is not None:
        shapes.handle("repetition", at)
    split, in_code = split_at_tags(response, tags)
    if in_code is not None:
        shapes.handle("tags_in_code", in_code)
    passages = _passages(split, tags, shapes)
    passages = _check_answer(passages, len(response), shapes)
    if any(character in response for character in ZERO_WIDTH):
        passages = _check_edges(passages, shapes)
    shapes.raise_faults(placed=len(given) == len(response))
    if all(not thought and is_blank(text) for text, thought in passages):
        raise MalformedResponse("no text left after repairs")
    return tuple(passages), shapes.notes


def unparse(passages: tuple[Passage, ...], tags: Tags = Tags()) -> str:  # noqa: B008
    """Return the response that these passages came from."""
    return "".join(f"{tags.open}{text}{tags.close}" if thought else text for text, thought in passages)


def _check_characters(response: str, shapes: ShapesFound) -> str:
    """The response, with repaired line ends if the policy repairs them."""
    if (at := response.find("\r\n")) >= 0 and shapes.handle("windows_lines", at) == "repair":
        response = response.replace("\r\n", "\n")
    if not response.isascii():
        odd = ODD_LINE_ENDS.search(response)
        if odd and shapes.handle("odd_lines", odd.start()) == "repair":
            response = ODD_LINE_ENDS.sub("\n", response)
        if (at := response.find("\ufffd")) >= 0:
            shapes.handle("damaged", at)
    return response


def _passages(split: list[str], tags: Tags, shapes: ShapesFound) -> list[Passage]:
    """The passages of text, tag, text, tag, …, text."""
    if len(split) == 1:
        shapes.handle("no_thought")
        return [Passage(split[0], thought=False)]
    first_tag = len(split[0])
    if split[1] == tags.close:
        shapes.handle("missing_open", first_tag)
        split, first_tag = ["", tags.open, *split], -len(tags.open)
    if not is_blank(split[0]) and shapes.handle("text_before", 0) == "repair":
        # The moved text counts behind the first tag: without it the later tags would be counted too far
        split, first_tag = ["", split[1], split[0] + split[2], *split[3:]], 0
    texts, places = _in_turn(split, first_tag, tags, shapes)
    if len(texts) % 2 == 0:
        shapes.handle("unclosed", places[-1])
    passages = []
    for k, text in enumerate(texts):
        thought = k % 2 == 1
        if thought and is_blank(text) and shapes.handle("empty_thought", max(0, places[k - 1])) == "repair":
            continue
        if thought or text:
            passages.append(Passage(text, thought))
    return _joined(passages)


def _in_turn(split: list[str], at: int, tags: Tags, shapes: ShapesFound) -> tuple[list[str], list[int]]:
    """The texts around the tags that open and close blocks in turn, the first one opening; and the offsets of these
    tags. Other tags are kept as text or deleted. `at` is the offset of the first tag."""
    parts, places = [[split[0]]], []
    last_close, depth = False, 0
    for tag, following in zip(split[1::2], split[2::2], strict=True):
        opens = tag == tags.open
        if depth == (0 if opens else 1):
            places.append(at)
            parts.append([following])
        else:
            action = shapes.handle("nested" if depth else "lone_close", at)
            last_close |= action == "last_close"
            parts[-1] += (tag, following) if action == "keep" else (following,)
        depth = max(depth + (1 if opens else -1), 0)
        at += len(tag) + len(following)
    if last_close and tags.close in (names := split[1::2]):
        texts = split[::2]
        after = len(names) - names[::-1].index(tags.close)  # the index of the text after the last closing tag
        parts = [texts[:1], texts[1:after], texts[after : after + 1]]
        places = places[:1]
        if after < len(names):  # a block that is never closed
            parts.append(texts[after + 1 :])
            places += [0, at - sum(map(len, split[2 * after + 1 :]))]
    return ["".join(part) for part in parts], places


def _joined(passages: Sequence[Passage]) -> list[Passage]:
    """The passages, with the texts around a deleted block as one."""
    joined: list[Passage] = []
    for thought, group in groupby(passages, lambda passage: passage.thought):
        alike = list(group)
        joined += alike if thought else [Passage("".join(text for text, _ in alike), thought=False)]
    return joined


def _check_answer(passages: list[Passage], end: int, shapes: ShapesFound) -> list[Passage]:
    """The passages, without tags around the answer if the policy repairs them. `end` is the length of the response."""
    *before, (text, thought) = passages or [Passage("", thought=False)]
    inside = None if thought else text
    if inside is not None and (wrapper := _wrapper(inside)):
        start, stop = text.index(wrapper[0]), text.rindex(wrapper[1])
        inside = text[start + len(wrapper[0]) : stop]
        if shapes.handle("wrapped_answer") == "repair":
            text = text[:start] + inside.strip() + text[stop + len(wrapper[1]) :]
            passages = [*before, *([Passage(text, thought=False)] if text else [])]
    if inside is None or _is_empty(inside):
        shapes.handle("no_answer", end)
    return passages


def _is_empty(answer: str) -> bool:
    """Whether an answer holds at most tags around an answer, like the `</answer>` that follows a late `</think>`."""
    if answer.lstrip(EDGE).startswith("<"):
        for tag in chain(*WRAPPERS):
            answer = answer.replace(tag, "")
    return is_blank(answer)


def _wrapper(answer: str) -> tuple[str, str] | None:
    """The pair of tags that all of the answer stands between, or None."""
    answer = answer.strip(EDGE)
    for pair in WRAPPERS:
        if answer.startswith(pair[0]) and answer.endswith(pair[1]) and all(answer.count(tag) == 1 for tag in pair):
            return pair
    return None


def _check_edges(passages: list[Passage], shapes: ShapesFound) -> list[Passage]:
    """The passages, without zero-width characters at their edges if the policy repairs them."""
    trimmed = [Passage(without_zero_width(text), thought) for text, thought in passages]
    if trimmed == passages or shapes.handle("zero_width") != "repair":
        return passages
    return [passage for passage in trimmed if passage.thought or passage.text]
