"""Text from data, files, models and names, made safe for a terminal and a log.

A control character can move the cursor, clear a screen or forge a line; a bidirectional one can show a text in another
order; an invisible one hides words. All are shown as marks, so a reader sees that they are there.
"""

import re

# Categories Cc, Cf, Cs, Zl, Zp and the letters that have no picture (Unicode 16), without \n and \t
_HIDDEN = (
    "\0-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u115f\u1160\u17b4\u17b5"
    "\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufe00-\ufe0e\ufeff\uffa0\ufff0-\ufffb\ud800-\udfff"
    "\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
# Joiners stay between characters of scripts and emoji that are written with them, as in Persian, Hindi and families
_JOINED = r"(?<=[^\0-\u02ff\u2000-\u206f])[\u200c\u200d](?=[^\0-\u02ff\u2000-\u206f])"
HIDDEN = re.compile(f"{_JOINED}|(?P<hidden>[{_HIDDEN}])")
HIDDEN_OR_LINE = re.compile(f"{_JOINED}|(?P<hidden>[\n{_HIDDEN}])")
SURROGATES = re.compile("[\ud800-\udfff]")  # UTF-8 cannot encode them


def visible(text: str, lines: bool = False) -> str:
    """Return the text with a mark for each control, bidirectional or invisible character: ␛, or ⟨U+202E⟩.

    `lines` keeps line ends; without it the result is one line.
    """
    if text.isascii() and text.isprintable():
        return text
    return (HIDDEN if lines else HIDDEN_OR_LINE).sub(_mark, text)


def _mark(found: re.Match[str]) -> str:
    if found["hidden"] is None:
        return found[0]
    code = ord(found[0])
    return chr(0x2400 + code) if code < 32 else f"⟨U+{code:04X}⟩"
