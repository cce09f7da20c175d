"""What counts as text, and what may be deleted at the edges of a text."""

import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamodules.text.blank import ZERO_WIDTH, is_blank, without_zero_width

UNSEEN = "\ufeff\u200b\u200c\u200d\u200e\u200f\u2060\u2063\u00ad\u061c\u202e\u3164\ufe0f\U000e0041"


@pytest.mark.parametrize("text", ["", " \n\t\u3000\u00a0\x85", *UNSEEN, f" {UNSEEN}\r\n"])
def test_a_text_without_a_visible_character_is_blank(text: str) -> None:
    assert is_blank(text)


@pytest.mark.parametrize("character", ["a", "0", ".", "。", "ा", "\u0301", "\ufffd", "\x00", "🙂", "\u2800", "\u0600"])
def test_a_text_with_another_character_is_not_blank(character: str) -> None:
    assert not is_blank(character) and not is_blank(f"\u200b \ufeff{character}\u200b")


def test_no_letter_digit_or_punctuation_counts_as_blank_except_fillers() -> None:
    blank = [c for c in map(chr, range(sys.maxunicode + 1)) if is_blank(c)]
    odd = {c for c in blank if unicodedata.category(c)[0] in "LNPS"}
    assert odd == set("\u115f\u1160\u3164\uffa0")  # letters of Unicode by name, and nothing to see


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\ufeff a\u200bb \u2060\n", " a\u200bb \n"),
        ("\n\u200b\na", "\n\na"),
        ("\u200b \ufeff", " "),
        ("\u200c\u200da\u200e", "\u200c\u200da\u200e"),
        ("a", "a"),
    ],
)
def test_zero_width_characters_are_deleted_at_the_edges_only(text: str, expected: str) -> None:
    assert without_zero_width(text) == expected


@given(st.text(st.sampled_from(f"{ZERO_WIDTH}\u200d \nab"), max_size=12))
def test_nothing_else_is_deleted_and_the_edges_are_clean(text: str) -> None:
    done = without_zero_width(text)
    assert without_zero_width(done) == done
    assert done.translate(dict.fromkeys(map(ord, ZERO_WIDTH))) == text.translate(dict.fromkeys(map(ord, ZERO_WIDTH)))
    assert is_blank(done) == is_blank(text)
    inner = done.strip()
    assert inner[:1] not in {*ZERO_WIDTH} and inner[-1:] not in {*ZERO_WIDTH}
