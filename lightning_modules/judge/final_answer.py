r"""The final answer in a text: in \boxed{}, after #### or "the answer is", a choice, or the last line."""

import re
from dataclasses import dataclass, replace
from typing import Literal

from lightning_modules.judge.choice import find_choice
from lightning_modules.judge.lists import find_list
from lightning_modules.judge.moment import find_moment
from lightning_modules.judge.notation import LONGEST, plain
from lightning_modules.judge.quantity import find_quantity
from lightning_modules.judge.units import find_unit

Place = Literal["box", "####", "answer is", "choice", "last line", "sentence"]
_TAIL = 10_000  # characters at the end of a text in which a phrase is looked for

_BOX_BEGINS = re.compile(r"\\(?:boxed|fbox)\s*\{")
_BOXES_ONLY = re.compile(r"(?:\\(?:boxed|fbox)\s*\{\s*)+")
_MOST_PARTS = 20  # boxes that are one answer together
_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{|\\.|[{}]", re.DOTALL)
_NOTHING = re.compile(r"\s*(?:\\[\[\]()]|\$\$?|[*_#`-]*|\\(?:begin|end)\{\w+\*?\})\s*")  # a line without words
_BETWEEN_BOXES = re.compile(r"(?:[\s,;$]|\\[()\[\],;! ]|\\text\{\s*(?:and|or)\s*\}|\band\b|\bor\b)*")
_ADJECTIVE = r"(?:final|correct|best|right|overall|exact|only|possible)"
_PHRASE = re.compile(
    rf"""(?:\b(?:{_ADJECTIVE}\s+){{0,3}}(?:answer|(?P<weak>result|option|choice|solution))(?:\s+choice)?
        (?:\s+(?:to|of|for|in)\s[^.:=\n]{{1,80}}?)?\s*(?:\bis\b|\bare\b|\bwould\s+be\b|\bmust\s+be\b|[:=])
        (?:\s*(?:therefore|thus|simply|just|indeed|option|choice)\b)*\s*:?
    |答案(?:应该|就)?(?:是|为|為|[:：])+|答え(?:は|[:：])|答[:：]|정답은|정답\s*:|답은|답\s*:
    |\bответ(?:ом)?(?:\s+(?:является|равен)|\s*[:—-])|(?:الجواب|الإجابة|الاجابة)(?:\s+(?:النهائي|النهائية|الصحيحة))?\s*(?:هو|هي|[:：])
    |\brespuesta(?:\s+final|\s+correcta)?(?:\s+es|\s*:)|\bréponse(?:\s+finale|\s+correcte)?(?:\s+est|\s*:)
    |\bantwort(?:\s+ist|\s+lautet|\s*:)|\brisposta(?:\s+finale)?(?:\s+è|\s*:)|\bresposta(?:\s+final)?(?:\s+é|\s*:)
    |\bcevap\s*:?|\bodpowiedź(?:\s+to|\s*:)|उत्तर(?:\s+है)?\s*:?|^\#+\s*(?:final\s+)?(?:answer|result)\W*$)
    [\s]*""",
    re.VERBOSE | re.IGNORECASE | re.MULTILINE,
)
_ENDINGS = re.compile(r"\s*(?:です|입니다|이다|है)?[.。!]?\s*$")
_CLOSING = re.compile(r"(?:i )?hope|let me know|feel free|if you have|please|thank|is there anything|check\s*:", re.I)
_REMARK = re.compile(
    r",?\s+check\s*:|,\s+(?:because|since|not|which|as|giving|where|with)\s|\s(?:because|since)\s"
    r"|\s\((?:not|since|because|as|i\.e\.|that is|which)\s|[.!?。]\s+(?-i:(?=[A-ZÀ-Þ(]))|(?<=[^\W\d])[.!?。]\s",
    re.IGNORECASE,
)
_VERDICT_WORD = re.compile(r"(yes|no|true|false)\b(?=\s*(?:[,.;:!]|$|-|because))", re.IGNORECASE)
_HEDGE = re.compile(
    r"\b(?:not|never|whether|unless|unclear|maybe|perhaps|neither|either|if|or|cannot|unable|unknown|impossible|sorry|guess"
    r"|probably|could|might|may|than|at least|at most|up to|between|within|under|over|below|above|almost|nearly)\b"
    r"|n't\b",
    re.IGNORECASE,
)
_LETTERED = re.compile(
    r"\(([A-J])\)|\b(?:[Oo]ption|[Cc]hoice)\s+([A-J])\b|\b([A-J])\b(?=\s+(?:is|as)\s+(?:the\s+)?(?:correct|right|answer))"
)
_DENIES = re.compile(
    r"\b(?:not|incorrect|wrong|fails|violates|cannot|invalid|false|except|eliminat\w+|excludes?d?|rules? out)\b|n't\b"
)
_SO = re.compile(r"[,;]\s+(?:so|thus|hence|therefore)\s+", re.IGNORECASE)
_TAG = re.compile(r"</?\w+>")
_IS = re.compile(
    r"\s(?:is|are|was|were|equals|be|to|gives|get|totals|costs|makes|has|takes)\s+(?:equal\s+to\s+|exactly\s+)?"
)
_LINE_BEGINS = re.compile(r"(?:[*•]\s+|-\s+(?!\d)|#+\s+|(?:so|thus|hence|therefore|then|answer),?\s+)+", re.IGNORECASE)
_STEP_NUMBER = re.compile(r"^\s*\d{1,2}[.)]\s+(?=[^\W\d])")  # "2. Then we get 12"
_NUMBER = re.compile(r"(?<![\w.,/^{}\\])[-+]?[$€£¥₹]?\d[\d,.]*(?:/\d+)?(?![\w/^(=+*{}\\])")


@dataclass(frozen=True)
class FinalAnswer:
    """The text of a final answer, where it stood, and the sentence it was taken from, if nothing marked it."""

    text: str
    place: Place
    sentence: str = ""
    whole: bool = False  # the text had one line


def final_answer(text: str) -> FinalAnswer | None:
    """Return the final answer of a text; None for a text or a box without any."""
    if (boxed := last_boxed(text)) is not None:
        boxed = _unwrapped(boxed.strip())
        return FinalAnswer(boxed, "box") if boxed else None
    lines = [line for line in text[-_TAIL:].split("\n") if not _NOTHING.fullmatch(line)]
    if not lines or not text.strip():
        return None
    for line in lines[-3:][::-1]:
        if (found := re.match(r"\s*####\s*(?=\S)(.*)", line)) and (line is lines[-1] or find_quantity(plain(found[1]))):
            return FinalAnswer(found[1].strip(), "####")
    while len(lines) > 1 and _CLOSING.match(lines[-1].strip(" *_#")):
        lines.pop()
    tail = re.sub(r"\*\*|__", "", "\n".join(lines))
    for found in reversed(list(_PHRASE.finditer(tail))):
        rest, _, after = tail[found.end() :].partition("\n")
        start = tail.rfind("\n", 0, found.end()) + 1
        if not rest.strip() or (start > found.start() and after.strip() and not is_value(rest)):
            continue  # a heading above several lines
        if found["weak"] and tail.count("\n", found.end()) > 1:
            continue  # an "option" or a "result" on the way
        if re.match(r"\W*(?:not|incorrect|correct|wrong|right)\b", rest, re.IGNORECASE):
            continue
        return FinalAnswer(_inner(_head(rest)), "answer is")
    line = _STEP_NUMBER.sub("", lines[-1]) if len(lines) > 1 else lines[-1]
    last = _from_last_line(_display(text[-_TAIL:]) or re.sub(r"\*\*|__", "", line))
    return replace(last, whole=len(lines) == 1)


def last_boxed(text: str) -> str | None:
    r"""Return the content of the last closed \boxed{}, with any nesting; None if there is none. One pass over the text.

    Boxes with nothing but a comma or "and" between them are one answer in parts: their contents, with commas.
    """
    first = _BOX_BEGINS.search(text)
    if first is None:
        return None
    stack: list[tuple[int, int]] = []  # of open braces: where the box begins, or -1; where its content begins
    boxes: list[tuple[int, int, int]] = []  # begin, begin and end of the content
    for found in _BOX.finditer(text, first.start()):
        if found[0][-1] == "{" and found[0] != "\\{":
            stack.append((found.start() if len(found[0]) > 1 else -1, found.end()))
        elif found[0] == "}" and stack:
            begin, inside = stack.pop()
            if begin >= 0:
                while boxes and boxes[-1][0] > begin:
                    boxes.pop()  # inside of this one
                boxes.append((begin, inside, found.start()))
    if not boxes:
        return None
    parts = [text[boxes[-1][1] : boxes[-1][2]]]
    boxes = boxes[-_MOST_PARTS:]
    for (_, inside, end), (begin, _, _) in zip(boxes[-2::-1], boxes[:0:-1], strict=False):
        if begin - end > 40 or not _BETWEEN_BOXES.fullmatch(text, end + 1, begin) or begin == end + 1:
            break
        parts.insert(0, text[inside:end])
    return ", ".join(part.strip() for part in parts) if len(parts) > 1 else parts[0]


def _unwrapped(text: str) -> str:
    r"""Return the content of boxes in boxes: 5 of \boxed{\boxed{5}}."""
    opened = _BOXES_ONLY.match(text)
    depth = opened[0].count("{") if opened else 0
    closed = len(text) - len(text.rstrip("}"))
    return text[opened.end() : len(text) - depth].strip() if opened and 0 < depth <= closed else text


def _display(text: str) -> str:
    r"""Return the content of a display \[…\] or $$…$$ that ends a text; "" if none does."""
    text = text.rstrip().rstrip(".").rstrip()
    for begin, end in (("\\[", "\\]"), ("$$", "$$")):
        if text.endswith(end) and (start := text.rfind(begin, 0, len(text) - 2)) >= 0:
            content = text[start + 2 : -2].strip().rstrip(".")
            rows = content if "matrix" in content else content.rpartition("\\\\")[2]
            return " ".join(rows.replace("\n", " ").split())
    return ""


def _head(rest: str) -> str:
    """Return a phrase's answer without the remarks and sentences after it."""
    found = _REMARK.search(rest)
    return _ENDINGS.sub("", rest[: found.start()] if found and rest[: found.start()].strip() else rest).strip()


def _inner(text: str) -> str:
    """Return the value in "the coefficient is 384", or the text."""
    if not is_value(text) and (found := _last(_IS, text)) and is_value(text[found.end() :]):
        return text[found.end() :].strip()
    if (found := re.match(r"\(?([A-J])\)?(?=\s*(?:$|because\b|since\b|\((?![A-J]\))))", text)) is not None:
        return f"({found[1]})"
    return text


def _from_last_line(line: str) -> FinalAnswer:
    line = line.strip().strip("`").strip()
    if (found := _LINE_BEGINS.match(line)) is not None:
        line = line[found.end() :]
    if is_value(line):
        return FinalAnswer(line, "last line")
    if (verdict := _VERDICT_WORD.match(line)) is not None:
        return FinalAnswer(verdict[1], "last line", line if line[verdict.end() :].strip(" .") else "")
    head = _head(line)
    if head != line and is_value(head):
        return FinalAnswer(head, "last line")
    sentence = re.split(r"(?<=[^\W\d])[.!?]\s+|[.!?]\s+(?=[A-Z(])", line)[-1] if len(line) <= LONGEST else line
    if is_value(sentence):
        return FinalAnswer(sentence.strip(" ."), "last line")
    if (found := _last(_SO, sentence)) is not None and sentence[found.end() :].strip(" ."):
        sentence = sentence[found.end() :]
    letters = {next(filter(None, found)) for found in _LETTERED.findall(sentence)}
    if len(letters) == 1 and not _DENIES.search(sentence):
        return FinalAnswer(f"({letters.pop()})", "choice")
    if len(letters) > 1 and (found := _last(re.compile(r"\b(?:so|must be|is|therefore)\s+\(([A-J])\)\W*$"), sentence)):
        return FinalAnswer(f"({found[1]})", "choice")
    if (found := re.search(r":\s+([^:]+)$", sentence)) and is_value(found[1]):
        return FinalAnswer(found[1].strip(" ."), "sentence", sentence)
    if not _HEDGE.search(sentence) and not _TAG.search(sentence):
        if (found := _last(_IS, sentence)) and is_value(sentence[found.end() :]):
            return FinalAnswer(sentence[found.end() :].strip(" ."), "sentence", sentence)
        numbers = list(_NUMBER.finditer(sentence))
        if len(numbers) == 1 and len(sentence.split()) > 2:  # "room 5" is a name
            value = sentence[numbers[0].start() :].strip(" .")
            return FinalAnswer(value if is_value(value) else numbers[0][0].rstrip(".,"), "sentence", sentence)
        if (found := _last(_IS, sentence)) and not numbers:
            return FinalAnswer(sentence[found.end() :].strip(" ."), "sentence", sentence)
    return FinalAnswer(line, "last line")


def is_value(text: str) -> bool:
    r"""Whether a text is nothing but a value: a number, list of values, time, choice, or LaTeX without sentences."""
    text = text.strip()
    if not text or len(text) > LONGEST:
        return False
    form = plain(text)
    if find_quantity(form) or find_moment(form) or ((choice := find_choice(form)) and choice.marked):
        return True
    if (several := find_list(form)) and all(find_quantity(element) for element in several.elements):
        return True
    words = re.findall(r"[^\W\d_]{2,}", re.sub(r"\\[a-zA-Z]+", " ", form))
    return bool(re.search(r"[\d\\=+*/^]", text)) and all(
        word.lower() in _FUNCTIONS or ((unit := find_unit(word)) and unit.powers) for word in words
    )


_FUNCTIONS = frozenset("sin cos tan log ln exp sqrt pi max min gcd lcm or and xy ab".split())


def _last(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    return next(reversed(list(pattern.finditer(text))), None)
