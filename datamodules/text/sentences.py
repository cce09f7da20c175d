"""Where the sentences of a thought end, in any script.

A stop ends a sentence only if the texts on both sides allow it. Closing quotes, brackets, emphasis and tags after
a stop belong to the sentence before them.
"""

import re
from collections.abc import Iterator, Sequence

from datamodules.text.abbreviations import ARABIC_JOINS, LIST_MARKER, belongs_to_word, is_list_marker, starts_sentence
from datamodules.text.protected import CJK, STOPS, WIDE_STOPS, Span

# A stop that certainly ends a sentence if white space and a capital follow: after a word of three letters or more that
# is not an abbreviation, after a number within a line (unless the word before it ends as German articles do: "der 3.
# Fall"), after a bracket, or a "?". Most stops are of this kind.
SURE = (
    r"(?:(?<=[a-z]{3}\.)(?<!rof\.|ept\.|rox\.|esp\.|viz\.|inc\.|ltd\.|bzw\.|vgl\.|vtl\.|ggf\.|nkl\.|sog\.|spw\.|rsg\.)"
    r"(?<![ivx]{3}\.)(?<!Sres\.|Sras\.|Srta\.|Mlle\.|Aufg\.|phil\.)"
    r"|(?<=[a-z=] \d\.)(?<!(?:[Aa]m|[Ii]m|om|um|ur|er|ie|as|em|en|es|ne|in|nd) \d\.)"
    r"|(?<=[a-z=] \d\d\.)(?<!(?:[Aa]m|[Ii]m|om|um|ur|er|ie|as|em|en|es|ne|in|nd) \d\d\.)"
    r"|(?<=\)\.)|(?<=\?))"
)
CLOSER = r"(?:[\"'”’»›)\]}*_~」』）】》〉〕］｝＂＇]|[“‘«](?!\S)|[ \xa0\u202f][»›](?!\w)|</[A-Za-z]\w{0,20}>)"
# A match includes the following white space. The empty groups give the kind of the stop and the end of the step. The
# first character stands before the alternatives so that `re` searches for one of a set of characters, which is fast.
ENDING = re.compile(
    rf"[{STOPS}{WIDE_STOPS}\n](?:{SURE}(?P<sure>)\s+(?=[A-Z])"
    rf"|(?<=[{STOPS}])(?<![{STOPS}][{STOPS}])[{STOPS}]*+{CLOSER}*+(?P<stop>)\s+"  # from the first of several stops
    r"|(?<=\n)(?P<line>)\s*"
    # No white space need follow the stops of other scripts, nor any stop between two CJK characters
    rf"|(?<=[{WIDE_STOPS}])(?:[{STOPS}{WIDE_STOPS}]|{CLOSER})*+(?P<wide>)\s*"
    rf"|(?<=[{CJK}][.!?])[.!?]*+{CLOSER}*+(?P<between>)(?=[{CJK}]|(?<=[!?])[0-9A-Za-z]))"
)
OPERATORS = frozenset("=+-−*/×÷·<>≤≥≠≈^%&|,;:)]}→—،؛、，；：")  # "3! = 6" continues
CONTINUING = OPERATORS | {"_", "~"}
COMMAS = frozenset(",;:،؛、，；：=＝×)]}」』）】》〉—")  # a sentence in CJK or Arabic continues with one of these
QUOTE_CLOSERS = frozenset("\"'”’»›“‘«」』）】》〉〕］｝)]＂＇")
# After a quotation that ends in a stop: the particles that continue a Japanese sentence and the words that continue a
# Chinese one ("“……？”这句话"), but not the words that begin a new one
JOINS = re.compile(
    r"(?!では|でも|だから|だが|ですから|なので|なぜ|なるほど|なお|また|まず|まあ|まとめ|もし|もちろん|もう|よって|よし|よく|はい|はじめ"
    r"|とりあえず|ところ|とにかく|かつ|かりに|にもかかわらず|がんば)[とってはがをにのもでだなかまよへや]|的|和|与|或(?!者)|等(?!等|一|下)|时|这[句个些种两几]"
)
THOUGHT = re.compile(r"と(?:[思考聞問言書疑答叫感]|い[うえわっ])|って|という")  # "なぜ？と思う"
# Emphasis and formatting tags in front of a word: the word decides
OPENING = re.compile(
    r"(?:\*{1,3}(?=[^\s*])|_{1,3}(?=[^\s_])|~~(?=\S)|<(?:b|i|em|strong|u|s|a|mark|span|code)\b[^<>\n]{0,99}>)+"
)
TAG = re.compile(r"<(?:[A-Za-z!|]|/[A-Za-z])")
COLONS = (":", "：", "፦", "՝")
LINE_END = " \t\r\u3000\xa0*_"  # stands after the last word of a line
# A line with this beginning starts a step even in lower case: a list item or an equation
NEW_LINE = re.compile(rf"{LIST_MARKER.pattern}|[a-z]\d*\s*[=+\-−*/^_(<>≤≥≠]")


def _continues(text: str, at: int, after: int) -> bool:
    """Whether the sentence goes on after the stop at `at` because of the character of CONTINUING at `after`."""
    if text[at] == "!" and text[at - 1 : at].isdigit():
        return text[after] in OPERATORS  # "4! *13"
    if opening := OPENING.match(text, after):
        return text[opening.end() : opening.end() + 1].islower()
    return text[after] in OPERATORS and not TAG.match(text, after)


def _ends_sentence(text: str, start: int, at: int, end: int, after: int) -> bool:
    """Whether the stop at `at` ends the sentence that began at `start`. The step would end at `end`, and the next text
    begins at `after`."""
    following = text[after : after + 1]
    if following.islower() or (following in CONTINUING and _continues(text, at, after)):
        return False
    if following > "~" and text[end - 1] in QUOTE_CLOSERS and ARABIC_JOINS.match(text, after):
        return False
    stop, second = text[at], text[at + 1]
    if stop == ".":
        return second in ".!?…" or not belongs_to_word(text, start, at, after)
    if stop == "!" and following == "(" and text[at - 1 : at].isdigit():
        return False  # "2! (for the others)"
    if second == ")" and stop in "?!":
        return starts_sentence(text, after)  # "red (colour?) Mexican hat" continues
    return True


def _ends_wide(text: str, start: int, at: int, end: int, after: int) -> bool:
    """Like `_ends_sentence`, for a stop that needs no white space after it."""
    following = text[after : after + 1]
    if not following or "\n" in text[end:after]:
        return not (text[at] == "．" and is_list_marker(text, start, at + 1))
    if following in COMMAS:
        return False
    if text[at] in "．։" and (text[at - 1 : at].isdigit() and text[at + 1].isdigit()):
        return False  # "３．５"
    if text[at] == "．" and is_list_marker(text, start, at + 1):
        return False
    if text[end - 1] in "》〉":
        return False  # a title is part of a sentence
    if text[end - 1] in QUOTE_CLOSERS:
        return not (
            JOINS.match(text, after) or ARABIC_JOINS.match(text, after) or (end < after and following.islower())
        )
    return not (text[at] in "？！?!‼⁇⁈⁉" and THOUGHT.match(text, after))


def _ends_line(text: str, start: int, at: int, after: int) -> bool:
    """Whether the line break at `at` ends a step. A line that ends in a colon stays with the next line."""
    if text[at - 1 : at] != "." and text[max(start, at - 20) : at].rstrip(LINE_END).endswith(COLONS):
        return False
    return not text[after : after + 1].islower() or text.count("\n", at, after) > 1 or bool(NEW_LINE.match(text, after))


def sentence_cuts(text: str, protected: Sequence[Span]) -> Iterator[Span]:
    """Yield (end, start of the next sentence) for each sentence except the last."""
    beyond = (len(text), len(text) + 1)
    spans = iter(protected)
    sure, line, stop = ENDING.groupindex["sure"], ENDING.groupindex["line"], ENDING.groupindex["stop"]
    start = span_start = span_end = 0
    next_start, next_end = next(spans, beyond)
    for match in ENDING.finditer(text):
        at, after = match.span()
        kind = match.lastindex  # the number of a group is faster than its name
        end = at + 1 if kind == sure else at if kind == line else match.start(kind)  # type: ignore[arg-type]
        while span_end <= at:
            span_start, span_end = next_start, next_end
            next_start, next_end = next(spans, beyond)
        if span_start < end:
            if span_start > at:
                end = after = span_start  # a closing text that opens the next protected text: "。**Next.**"
            elif kind == line or end < span_end:
                continue  # inside, except a stop before the closing quote or bracket: it may end the whole sentence
            elif next_start < end:
                end = after = next_start
        if kind != sure:
            if kind == stop:
                if not _ends_sentence(text, start, at, end, after) and not (
                    "\n" in match[0] and _ends_line(text, start, end, after)
                ):
                    continue
            elif kind == line:
                if not _ends_line(text, start, at, after):
                    continue
            elif not _ends_wide(text, start, at, end, after):
                continue
        yield end, after
        start = after
