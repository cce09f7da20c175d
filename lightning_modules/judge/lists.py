"""Sets, tuples, intervals and lists: several answers in one text."""

import re
from dataclasses import dataclass

_JOINERS = re.compile(r",?\s+(?:and|or|und)\s+|\s*&\s*|,?\s*(?:∪)\s*")
_LABEL = re.compile(r"(?<![^\s,;])\(([a-h])\)\s*(?=[^\s,;])")  # of the parts of an answer
_OPEN, _CLOSE = "([{", ")]}"
MOST_ELEMENTS = 50  # a longer list is compared as text: the order-free comparison is quadratic


@dataclass(frozen=True)
class Listed:
    """Several elements. `brackets`: "()", "[]", "[)", "(]", "{}", or "" for none."""

    brackets: str
    elements: tuple[str, ...]

    @property
    def ordered(self) -> bool:
        return self.brackets not in ("", "{}")


def find_list(text: str) -> Listed | None:
    """Return the list that a plain text is as a whole; None for one value, or brackets without a partner."""
    text = text.strip().rstrip(".").strip()
    if "\\begin" in text:
        return None  # the & of a matrix joins no list
    if "±" in text and (found := re.fullmatch(r"([^±]*)±([^±]+)", text)):
        head, tail = found[1].strip(), found[2].strip()
        return Listed("", (f"{head}+{tail}", f"{head}-{tail}") if head else (tail, f"-{tail}"))
    if len(labels := list(_LABEL.finditer(text))) > 1 and labels[0].start() == 0:
        ends = [label.start() for label in labels[1:]] + [len(text)]
        values = [text[label.end() : end].strip(" ,;") for label, end in zip(labels, ends, strict=True)]
        return Listed("", tuple(f"{label[1]} = {value}" for label, value in zip(labels, values, strict=True)))
    brackets = ""
    if text[:1] in tuple(_OPEN) and text[-1:] in tuple(_CLOSE) and _one_pair(text):
        brackets, text = text[0] + text[-1], text[1:-1].strip()
    if not brackets and re.fullmatch(r"-?[\d.]+(?:\s-?[\d.]+)+", text):
        return Listed("()", tuple(text.split()))  # without commas the order counts
    elements = _split(text)
    if elements is None or len(elements) > MOST_ELEMENTS:
        return None
    if brackets == "{}":
        return Listed(brackets, tuple(dict.fromkeys(elements)))
    return Listed(brackets, tuple(elements)) if len(elements) > 1 else None


def _one_pair(text: str) -> bool:
    """Whether the first bracket and the last are a pair."""
    depth = 0
    for place, c in enumerate(text):
        depth += (c in _OPEN) - (c in _CLOSE)
        if depth == 0:
            return place == len(text) - 1
    return False


def _split(text: str) -> list[str] | None:
    """Split at commas, semicolons and joining words outside of brackets; None if brackets do not match.

    If some commas have a space after them, those without are part of numbers: "1,000, 2,000".
    """
    text = _JOINERS.sub("; ", text)
    strong = ";" if ";" in text and "," not in text else ";,"
    spaced = ", " in text
    elements, depth, start = [], 0, 0
    for place, c in enumerate(text):
        depth += (c in _OPEN) - (c in _CLOSE)
        if depth < 0:
            return None
        if depth == 0 and c in strong and (c == ";" or not spaced or text[place + 1 : place + 2].isspace()):
            elements.append(text[start:place].strip())
            start = place + 1
    if depth:
        return None
    elements.append(text[start:].strip())
    return [element for element in elements if element]
