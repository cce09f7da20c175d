"""Characters that no reader sees. A text of these alone is no thought and no answer.

Joiners (U+200C, U+200D) and marks of direction mean something inside words of Persian, Hindi or Arabic and in emoji. So
no character inside a text is deleted: `is_blank` asks only whether a text holds anything else, and
`without_zero_width` deletes three characters that mean nothing at the edge of a text, and only there.
"""

import re

# Unicode's property Default_Ignorable_Code_Point (Unicode 16, DerivedCoreProperties.txt)
_IGNORABLE = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f"
    "\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
_SEEN = re.compile(rf"[^\s{_IGNORABLE}]")
ZERO_WIDTH = "\ufeff\u200b\u2060"  # byte order mark, zero width space, word joiner
_DELETED = dict.fromkeys(map(ord, ZERO_WIDTH))
EDGE = ZERO_WIDTH + "".join(filter(str.isspace, map(chr, range(0x3001))))  # with all white space of Unicode


def is_blank(text: str) -> bool:
    """Whether the text holds only white space and characters that no reader sees."""
    return _SEEN.search(text) is None


def without_zero_width(text: str) -> str:
    """Return the text without zero-width characters before its first and after its last other character.

    White space there stays.
    """
    if not any(character in text for character in ZERO_WIDTH):
        return text
    start = len(text) - len(text.lstrip(EDGE))
    end = max(len(text.rstrip(EDGE)), start)
    return text[:start].translate(_DELETED) + text[start:end] + text[end:].translate(_DELETED)
