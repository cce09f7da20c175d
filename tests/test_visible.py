import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from visible import visible

# No picture, although their category is a letter, a mark or another symbol
FILLERS = {0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x3164, 0xFFA0, *range(0x180B, 0x1810), *range(0xFE00, 0xFE0F)}


def is_hidden(code: int) -> bool:
    return unicodedata.category(chr(code)) in ("Cc", "Cf", "Cs", "Zl", "Zp") or code in FILLERS


def test_every_control_bidirectional_and_invisible_character_is_shown_and_no_other_one_is_changed() -> None:
    # Ranges with places that this release of Python does not know
    reserved = range(0xFFF0, 0xFFF9), range(0x2065, 0x2066), range(0x13430, 0x13440), range(0xE0000, 0xE1000)
    for code in range(sys.maxunicode + 1):
        if any(code in some for some in reserved) or code == ord("\t"):
            continue
        shown = visible(f"a{chr(code)}b")
        assert (shown != f"a{chr(code)}b") == is_hidden(code), hex(code)
        if code != ord("\n"):
            assert visible(f"a{chr(code)}b", lines=True) == shown


@given(st.text())
def test_the_result_is_one_line_that_utf8_can_encode_and_that_stays_as_it_is(text: str) -> None:
    shown = visible(text)
    assert len(shown.splitlines()) <= 1 and shown.encode().decode() == shown
    assert visible(shown) == shown
    assert visible(text, lines=True).split("\n") == [visible(line) for line in text.split("\n")]


@pytest.mark.parametrize(
    "text",
    [
        "Solve x + 5 = 12", "½ · π ≈ 1,57", "你好，世界。", "می‌خواهم", "क्‍ष", "👨‍👩‍👧 ❤️", "e\u0301", "שלום", "\tcode",
        "한국어", "Ünïcödé",
    ],
)  # fmt: skip
def test_ordinary_text_of_every_language_stays(text: str) -> None:
    assert visible(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2Jgone", "␛[2Jgone"),
        ("a\nerror: forged", "a␊error: forged"),
        ("a\u202eb", "a⟨U+202E⟩b"),
        ("a\U000e0041", "a⟨U+E0041⟩"),
        ("\u3164\u061c", "⟨U+3164⟩⟨U+061C⟩"),
        ("\ud83d", "⟨U+D83D⟩"),
        ("a\u200bb", "a⟨U+200B⟩b"),
        ("\x9b31m", "⟨U+009B⟩31m"),
    ],
)
def test_marks(text: str, shown: str) -> None:
    assert visible(text) == shown
