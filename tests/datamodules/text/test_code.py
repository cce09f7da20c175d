"""Which tags in code are text: real fences and backticks hide tags, and marks that are no pair hide none."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules.text.code import split_at_tags, tag_pattern
from datamodules.text.tags import Tags

TAGS = Tags()


def tags_of(response: str) -> list[str]:
    """The tags of a response that are not text."""
    split, _ = split_at_tags(response, TAGS)
    return split[1::2]


OPEN, CLOSE = "<think>", "</think>"


@pytest.mark.parametrize(
    ("response", "tags"),
    [
        # real code
        ("<think>It says `</think>`.</think>4", [OPEN, CLOSE]),
        ("It says `</think>`.\n</think>4", [CLOSE]),
        ("`</think>` ends it.", []),
        ("Use `text.split('</think>')` there.", []),
        ("Use ``a ` </think> `` there.", []),
        ("An example:\n```\n<think>\na\n</think>\nb\n```\nDone.", []),
        ("An example:\n~~~xml\n<think>\na\n</think>\nb\n~~~\nDone.", []),
        ("<think>a\n```\n</think>\n```\nb</think>c", [OPEN, CLOSE]),
        ("a\n```\n</think>\n```\nb</think>c", [CLOSE]),
        # neither reading is well-formed, and the code is real
        ("<think>I write `</think>`.</think>b</think>c", [OPEN, CLOSE, CLOSE]),
        ("<think>I write `<think>` first</think>b</think>", [OPEN, CLOSE, CLOSE]),
        ("<think>a</think>b</think>\n```\n<think>x</think>\n```\nc", [OPEN, CLOSE, CLOSE]),
        # a fence that the thought left open, and one of the answer
        ("<think>a\n```\nb</think>\n```\nc\n```\n", [OPEN, CLOSE]),
        ("a\n```py\nb\n</think>\nc\n```\nd\n```\ne", [CLOSE]),
        ("a\n```py\nb\n</think>\n\nc\n```py\nd\n```\n", [CLOSE]),
        # seven closing tags between two fences that are none
        (f"a\n```\nb{7 * '</think> c'}\n```\nd", 7 * [CLOSE]),
        (f"<think>a\n```\nb{7 * '</think> c'}\n```\nd", [OPEN, *7 * [CLOSE]]),
        # a line that begins with three backticks and has more of them is no fence
        ("<think>a\n```x``` is it\n</think>\nb\n```py\nc\n```\n", [OPEN, CLOSE]),
        ("a\n```x``` is it\n</think>\nb\n```py\nc\n```\n", [CLOSE]),
        ("<think>a\n```x``` is it\n</think>b\n```\nc</think>d", [OPEN, CLOSE, CLOSE]),
        # stray backticks have white space beside them
        ("a ` b</think>c ` d", [CLOSE]),
        ("<think>a ` b</think>c ` d", [OPEN, CLOSE]),
        # marks of different lengths are no pair
        ("a\n````\nb</think>c\n```\nd", [CLOSE]),
        ("<think>a `` b</think>c ` d", [OPEN, CLOSE]),
        # no tag, no code
        ("just `4`", []),
        ("<think>`a`</think>`b`", [OPEN, CLOSE]),
    ],
)
def test_tags_are_text_in_real_code_only(response: str, tags: list[str]) -> None:
    assert tags_of(response) == tags
    split, in_code = split_at_tags(response, TAGS)
    assert "".join(split) == response
    every = tag_pattern(TAGS).findall(response)
    assert (in_code is None) == (len(tags) == len(every))
    if in_code is not None:
        assert response.startswith((OPEN, CLOSE), in_code)


PIECES = st.lists(
    st.sampled_from([OPEN, CLOSE, OPEN, CLOSE, "a", " ", "\n", "`", "``", "```", "\n```\n", "\n```py\n", "\n~~~\n"]),
    max_size=16,
).map("".join)  # fmt: skip


def well_formed(tags: list[str], response: str) -> bool:
    """Whether a response is well-formed with these tags, of which the first opening one may be missing."""
    tags = [OPEN, *tags] if tags[:1] == [CLOSE] else tags
    return bool(tags) and tags == [OPEN, CLOSE] * (len(tags) // 2) and bool(response.rsplit(CLOSE, 1)[-1].strip())


@settings(max_examples=1_000, deadline=None)
@given(PIECES)
def test_a_reading_that_is_well_formed_is_taken(response: str) -> None:
    """If one of the two readings is well-formed, that of real code comes first."""
    split, _ = split_at_tags(response, TAGS)
    assert "".join(split) == response
    every = tag_pattern(TAGS).findall(response)
    if tags_of(response) and well_formed(every, response):
        assert well_formed(tags_of(response), response)


@pytest.mark.parametrize(
    "piece",
    [
        "`</think>` ",
        "```",
        "`",
        "\n```\n</think>",
        "\n```py\n<think>",
        "\n```x``` </think>",
        "~~~\n",
        "``` ` ",
        "<think>`",
    ],
)
def test_a_million_characters_take_no_quadratic_time(piece: str) -> None:
    text = piece * (1_000_000 // len(piece))
    for response in (text, f"<think>a</think>{text}", "`" * 500_000 + text[:500_000]):
        start = time.process_time()
        split_at_tags(response, TAGS)
        assert time.process_time() - start < 20  # quadratic time would be hours
