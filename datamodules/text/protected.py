"""The texts that no step may split: code, LaTeX, quotations, brackets, tables, emphasis and HTML elements.

A text is protected from its opening to its closing, if the closing is within reach. Otherwise the opening is ordinary
text. Each character is read a bounded number of times, so hostile text takes linear time, too.
"""

import re
from collections.abc import Iterator

Span = tuple[int, int]  # start and end offset in the thought

REACH = 400  # characters: the longest text that is protected within a line
STOPS = ".!?…"  # white space follows them
# The stops of other scripts, with or without white space after them: CJK, Arabic and Urdu, Devanagari, Armenian,
# Ethiopic, Burmese, Khmer, Mongolian, and pairs in one character
WIDE_STOPS = "。｡．！？﹖﹗؟؞۔।॥։።፧፨။។៕᠃᠉‼⁇⁈⁉‽"
PLAIN = rf"[^()\[\]\"“”‘`$\\{STOPS}{WIDE_STOPS}\n]*"  # no stops and no openers: always a short run
# Scripts without spaces between words: kana, Han ideographs, and their punctuation
CJK = (
    r"\u3001-\u303f\u3041-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    r"\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff9f"
)
PAIRS = ("「」", "『』", "（）", "【】", "《》", "〈〉", "〔〕", "［］", "｛｝", "«»", "‹›")
ELEMENTS = "pre|code|script|style|math|svg|table|tool_call|tool_response"  # of many lines
INLINE_ELEMENTS = "b|i|em|strong|u|s|a|q|mark|kbd|samp|cite|sub|sup|span|td|th"

# A named group matches an opening; the end of the text may be lines away and is found by a search. The other
# alternatives match a whole text. Brackets and quotations without a stop need no protection. A pair that could be read
# the other way round ("„…“", "»…«") is matched without one, too: otherwise its closing text would be an opening.
ALTERNATIVES = (
    r"`(?:(?P<ticks>``+)|[^`\n]{1,REACH}`)",
    r"\$(?:(?P<display>\$)|(?!\s)[^$\n]{1,REACH}(?<!\s)\$(?!\d))",  # pandoc's rule: prices are not LaTeX
    r"\\(?:(?P<bracket>\[)|(?P<begin>begin\{)|(?P<inline>\())",
    r"\((?!PLAIN\))(?:[^()\n]|\([^()\n]*\)){0,REACH}\)",
    r"\[(?!PLAIN\])[^\[\]\n]{0,REACH}\]",
    # Straight quotes: CJK text has no space in front of the opening one or after the closing one
    r"\"(?<![^\s(\[CJK]\")(?!PLAIN(?<![CJK])\")[^\s\"][^\"\n]{0,REACH}\"(?!(?![CJK\uac00-\ud7a3])\w)",
    r"“(?!PLAIN”)[^“”\n]{0,REACH}”",
    r"‘(?!PLAIN’)[^‘\n]{1,REACH}?’(?!(?![CJK])\w)",  # not an apostrophe
    r"„[^„“”\n]{1,REACH}[“”]",
    r"‚[^‚‘’\n]{1,REACH}[‘’]",
    r"»(?<![^\s(\[]»)\w[^«»\n]{0,REACH}«",
    r"›(?<![^\s(\[]›)\w[^‹›\n]{0,REACH}‹",
    *(rf"{a}(?:[^{a}{b}\n]|\n(?!\n)|{a}[^{a}{b}\n]{{0,REACH}}{b}){{0,REACH}}{b}" for a, b in map(tuple, PAIRS)),
    # Markdown: emphasis (not a product, a bullet or a name_with_underscores), struck text, fences of tildes
    r"\*(?<![\w*\\)\]}]\*)(?:\*(?=[^\s*])[^*\n]{1,REACH}(?<!\s)\*\*|(?=[^\s*])[^*\n]{1,REACH}(?<![\s(])\*(?![\w*(\[{]))",
    r"_(?<![^\s*(\[CJK]_)(?:_(?=[^\s_])[^_\n]{1,REACH}(?<!\s)__(?!\w)|(?=[^\s_])[^_\n]{1,REACH}(?<!\s)_(?!\w))",
    r"~(?<!\S~)(?:(?P<tildes>~~+)|~(?=[^\s~])[^~\n]{1,REACH}~~)",
    # HTML: comments, whole elements, and tags with attributes ("a <b. Then c> d" is no tag)
    r"<(?:(?P<comment>!--)|(?P<element>ELEMENTS)(?:\s[^<>\n]{0,REACH})?>"
    r"|(?P<inline_element>INLINE)(?:\s[^<>\n]{0,REACH})?>"
    r"|[A-Za-z][\w-]{0,40}(?:\s{1,9}[\w:-]{1,40}=(?:\"[^\"\n]{0,REACH}\"|'[^'\n]{0,REACH}')){1,20}\s{0,9}/?>)",
    # Tables: a line that begins with a bar above a line of bars and dashes; or such a line without outer bars
    r"\|(?:(?:(?<![^\n]\|)|(?<=\n[ ]\|)|(?<=\n[ ]{2}\|)|(?<=\n[ ]{3}\|))(?P<table>)(?=[^\n]*\n[ \t]*\|[ \t]*:?-)"
    r"|(?<=[-: ]\|)[ \t]*:?-(?P<rule>)[ \t:|-]*+(?![^\n]))",
)
PROTECTED = re.compile(
    "|".join(ALTERNATIVES)
    .replace("ELEMENTS", ELEMENTS).replace("INLINE", INLINE_ELEMENTS).replace("CJK", CJK)
    .replace("REACH", str(REACH)).replace("PLAIN", PLAIN)
)  # fmt: skip
# For each named group: the closing text, and the number of characters in which it must follow.
CLOSERS = {
    "ticks": ("`", 20_000), "tildes": ("~", 20_000), "display": ("$$", 4_000), "bracket": (r"\]", 4_000),
    "begin": (r"\end{", 4_000), "inline": (r"\)", REACH + 2), "comment": ("-->", 4_000), "element": ("</", 20_000),
    "inline_element": ("</", REACH),
}  # fmt: skip
ROWS = re.compile(r"[^\n]*(?:\n[ \t]*\|[^\n]*)*")  # of a table with outer bars
BARE_ROWS = re.compile(r"(?:\n(?=[^\n|]{1,200}\|)[^\n]*)*")
HEADER = re.compile(r"[^\n]*\|[^\n]*\n[ \t]*:?-+:?[ \t]*\Z")  # and the first cell of the rule below it


def _table(text: str, bar: int, end: int) -> Span | None:
    """Return the table without outer bars whose rule has its first bar at `bar` and ends at `end`, if it is one."""
    line = text.rfind("\n", max(0, bar - 60), bar)
    header = text.rfind("\n", max(0, line - 1_000), max(0, line)) + 1
    if line < 0 or not HEADER.match(text, header, bar):
        return None
    return header, BARE_ROWS.match(text, end).end()  # type: ignore[union-attr]


def protected_spans(text: str) -> Iterator[Span]:
    """Yield (start, end) of each protected text, in order. No two of them overlap."""
    at = last = 0
    none_before: dict[str, int] = {}  # closer -> offset up to which there is none: keeps the scan linear
    while match := PROTECTED.search(text, at):
        start, at = match.span()
        kind = match.lastgroup
        if kind == "table":
            at = ROWS.match(text, start).end()  # type: ignore[union-attr]
        elif kind == "rule":
            if not (table := _table(text, start, at)):
                continue
            start, at = max(last, table[0]), table[1]  # spans of the header are already out
        elif kind:
            closer, reach = CLOSERS[kind]
            if kind in ("ticks", "tildes"):
                closer *= at - start  # a longer fence may contain shorter ones
            elif closer == "</":
                closer = f"</{match[kind]}>"
            end = text.find(closer, max(at, none_before.get(closer, 0)), at + reach)
            if end < 0:
                none_before[closer] = at + reach - len(closer)
                continue
            if kind in ("inline", "inline_element") and "\n" in text[at:end]:
                continue
            at = end + len(closer)
        yield start, at
        last = at
