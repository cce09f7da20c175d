"""Tags in code: which think tags of a response are text, because they stand in a code fence or between backticks.

    "<think>It says `</think>`.</think>4"  ->  ["", "<think>", "It says `</think>`.", "</think>", "4"]

Models leave fences and backticks open. So two marks that look like a pair may have real tags between them, and the
tags decide how the response is read.
"""

import re
from bisect import bisect_right
from collections.abc import Iterator
from functools import cache

from datamodules.text.blank import is_blank
from datamodules.text.tags import Tags

# A fence at the beginning of a line: its characters, and whether nothing follows them. A line with more backticks after
# its first ones has no fence: ```x``` is code within the line
FENCE = re.compile(r"\n[ \t]*+(`{3,}+(?![^`\n]*`)|~{3,})([ \t\r]*$)?", re.MULTILINE)
BACKTICKS = re.compile("`+")
Span = tuple[int, int]  # start and end offset in the response


def split_at_tags(response: str, tags: Tags) -> tuple[list[str], int | None]:
    """Return the response split at its tags: text, tag, text, tag, …, text; and the offset of the first tag that is
    text because it stands in code, or None.

    Tags in code are text if the other tags form a well-formed response. If they do not, and all tags do, all count.
    If neither does, tags in code are text unless the code is doubtful: a fence in which tags have no partner, or
    backticks with white space next to them.
    """
    every = tag_pattern(tags).split(response)
    if len(every) == 1 or ("`" not in response and "~~~" not in response):
        return every, None
    outside, inside = _outside_code(response, tags)
    if not inside:
        return every, None
    if not _well_formed(outside, tags) and (
        (len(outside) > 1 and _well_formed(every, tags)) or any(_doubtful(response[a:b], tags) for a, b in inside)
    ):
        return every, None
    first = tag_pattern(tags).search(response, inside[0][0])
    assert first is not None
    return outside, first.start()


@cache
def tag_pattern(tags: Tags) -> re.Pattern[str]:
    """The pattern of either tag, as a group."""
    return re.compile(f"({re.escape(tags.open)}|{re.escape(tags.close)})")


def _outside_code(response: str, tags: Tags) -> tuple[list[str], list[Span]]:
    """The response split at the tags outside code, and the code that holds tags. Linear time."""
    fences = _fences(response)
    in_line: list[Span] = []  # the code between backticks in the line of the last tag
    split: list[str] = []
    inside: list[Span] = []
    at, line_end = 0, -1
    for match in tag_pattern(tags).finditer(response):
        tag = match.start()
        code = _around(fences, tag)
        if code is None:
            if tag > line_end:
                line = response.rfind("\n", max(line_end, 0), tag) + 1
                line_end = end if (end := response.find("\n", tag)) >= 0 else len(response)
                in_line = _between_backticks(response, line, line_end)
            code = _around(in_line, tag)
        if code is None:
            split += [response[at:tag], match[0]]
            at = match.end()
        elif inside[-1:] != [code]:
            inside.append(code)
    return [*split, response[at:]], inside


def _around(spans: list[Span], at: int) -> Span | None:
    """The one of some spans in order that holds this offset, or None."""
    k = bisect_right(spans, (at, at)) - 1
    return spans[k] if k >= 0 and at < spans[k][1] else None


def _fences(text: str) -> list[Span]:
    """(start, end) of each closed code fence, with its marks."""
    # The pattern begins with a line end, for which `re` searches fast
    marks = [(*match.span(), match[1], match[2] is not None) for match in FENCE.finditer(f"\n{text}")]
    closing = [0] * len(marks)  # index of the mark that closes each mark; 0 for a mark that opens nothing
    later: dict[str, int] = {}  # the nearest following mark that can close, by its characters
    for i in range(len(marks) - 1, -1, -1):
        _, _, mark, bare = marks[i]
        closing[i] = later.get(mark, 0)
        if bare:
            later[mark] = i
    return [(marks[i][0], marks[j][1] - 1) for i, j in _pairs(closing)]


def _between_backticks(text: str, start: int, end: int) -> list[Span]:
    """(start, end) of each text between backticks in a line, with the backticks: as many before as after it."""
    marks = [match.span() for match in BACKTICKS.finditer(text, start, end)]
    closing = [0] * len(marks)
    later: dict[int, int] = {}  # the nearest following mark, by its length
    for i in range(len(marks) - 1, -1, -1):
        length = marks[i][1] - marks[i][0]
        closing[i] = later.get(length, 0)
        later[length] = i
    return [(marks[i][0], marks[j][1]) for i, j in _pairs(closing)]


def _pairs(closing: list[int]) -> Iterator[tuple[int, int]]:
    """Yield (opening mark, closing mark) for the index that closes each mark. Marks within a pair are part of it."""
    i = 0
    while i < len(closing):
        if closing[i]:
            yield i, closing[i]
        i = max(i, closing[i]) + 1


def _well_formed(split: list[str], tags: Tags) -> bool:
    """Whether there are tags, opening and closing ones alternate, and text comes last. The first opening tag may be
    missing."""
    opens = [tag == tags.open for tag in split[1::2]]
    opens = opens[1:] if opens[:1] == [False] else opens
    return len(split) > 1 and opens == [True, False] * (len(opens) // 2) and not is_blank(split[-1])


def _doubtful(code: str, tags: Tags) -> bool:
    """Whether code with tags in it may be none: its marks may belong to other code."""
    if "\n" in code:  # an example of a response has both tags
        opens = [tag == tags.open for tag in tag_pattern(tags).findall(code)]
        return opens != [True, False] * (len(opens) // 2)
    content = code.strip("`")
    return content != content.strip() and not code.startswith("``")
