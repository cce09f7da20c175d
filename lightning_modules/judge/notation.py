"""Notation: one answer is written in LaTeX, Markdown, Unicode or plain ASCII, and its plain form is the same.

Three forms of a short text: `latex` (Unicode signs as LaTeX commands, for Math-Verify), `plain` (signs as characters,
for the rules), `key` (without what has no meaning, for comparing texts).
"""

import re
import unicodedata

LONGEST = 2_000  # characters; the rules read no longer text, so they need no care about repeated passes

_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻", "0123456789+-")
_SUPERSCRIPT = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻]+")
_VULGAR = re.compile(r"(?<=\d)(?=[¼½¾⅐-⅞])")
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]")
_SIGNS = {
    "−": "-", "–": "-", "—": "-", "‒": "-", "‐": "-", "‑": "-", "٫": ".", "٬": ",", "،": ",", "、": ",", "。": ".",
    "“": '"', "”": '"', "„": '"', "‘": "'", "’": "'", "«": '"', "»": '"', "×": "*", "✕": "*", "·": "*", "⋅": "*",
    "∙": "*", "÷": "/", "⁄": "/", "∕": "/", "∶": ":",
}  # fmt: skip
_COMMANDS = {
    "π": "pi", "∞": "infty", "±": "pm", "≤": "leq", "≥": "geq", "≠": "neq", "∪": "cup", "∩": "cap", "∅": "emptyset",
    "∈": "in", "θ": "theta", "α": "alpha", "β": "beta", "γ": "gamma", "λ": "lambda", "ω": "omega", "φ": "phi",
    "≈": "approx",
}  # fmt: skip
_BLACKBOARD = {"ℝ": "R", "ℚ": "Q", "ℤ": "Z", "ℕ": "N", "ℂ": "C"}
_ONE_NAME = {
    "le": r"\leq", "ge": r"\geq", "ne": r"\neq", "leqslant": r"\leq", "geqslant": r"\geq", "varnothing": r"\emptyset",
    "dfrac": r"\frac", "tfrac": r"\frac", "cfrac": r"\frac", "lt": "<", "gt": ">", "ast": "*", "varphi": r"\phi",
    "lbrace": r"\{", "rbrace": r"\}",
}  # fmt: skip
_SPACING = re.compile(
    r"(?<!\\)\\(?:[,;:> ]|(?:quad|qquad|displaystyle|textstyle|limits|nonumber|thinspace)(?![a-zA-Z])"
    r"|(?:left|right|[bB]igg?[lr]?)(?![a-zA-Z])\.?)|~"
)
_TEXT = re.compile(
    r"\\(?:text(?:bf|it|rm|sf|tt|up|normal|sc)?|math(?:rm|bf|it|sf|tt|bb|cal)|mbox|hbox|operatorname|emph|bm|boldsymbol"
    r"|underline|fbox|boxed)\s*\{([^{}]*)\}"
)
_DELIMITERS = re.compile(r"(?<!\\)\\[()\[\]]|\$\$")
_DOLLARS = re.compile(r"(?<!\\)\$([^$\n]*[^$\n\s\\])\$(?!\d)")
_SHORT_FRACTION = re.compile(r"\\frac\s*(?:(\d)\s*(\d)|\{([^{}]*)\}\s*(\d)|(\d)\s*\{([^{}]*)\})")
_FRACTION = re.compile(r"(\d\s*)?\\frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}")
_ROOT = re.compile(r"\\sqrt\s*\{([^{}]*)\}")
_PLAIN_ROOT = re.compile(r"(?<![\\a-zA-Z])sqrt\s*(?:\(([^()]*)\)|(\d+))|√\s*(?:\(([^()]*)\)|(\w+))")
_RAISED = re.compile(r"([\^_])\s*\{([^{}]*)\}")
_REPEATING = re.compile(r"(?<=[\d.])\\(?:overline|bar)\s*\{(\d+)\}")
_SEGMENT = re.compile(r"\\overline\s*\{\s*([A-Z]{2})\s*\}")  # of a line: AB
_EMPHASIS = re.compile(r"\*\*|__|`|(?<!\w)\*(?=\w)|(?<=\w)\*(?!\w)")
_ARTICLE = re.compile(r"(?:the|an?)\s+(?=\w\w)")


def _characters(text: str) -> str:
    """Return the text with one character for each sign, and digits of all scripts as 0 to 9."""
    text = _VULGAR.sub(" ", _INVISIBLE.sub("", text))
    text = _SUPERSCRIPT.sub(lambda found: "^{" + found[0].translate(_SUPERSCRIPTS) + "}", text)
    for sign, name in _BLACKBOARD.items():
        text = text.replace(sign, f"\\mathbb{{{name}}}")
    text = unicodedata.normalize("NFKC", text)
    return "".join(_SIGNS.get(c, c) if not c.isdigit() else str(unicodedata.digit(c)) for c in text)


def latex(text: str) -> str:
    """Return the text as LaTeX without delimiters and spacing: one command for each sign."""
    text = _characters(text)
    for sign, name in _COMMANDS.items():
        text = text.replace(sign, f"\\{name} ")
    text = re.sub(r"\\([a-zA-Z]+)", lambda found: _ONE_NAME.get(found[1], found[0]), text)
    text = _SPACING.sub(" ", text.replace("{,}", ",").replace("\\!", ""))
    text = re.sub(r"\^\s*(?:\{\s*\\circ\s*\}|\\circ)|\\degrees?(?![a-zA-Z])", "°", text)
    text = _DOLLARS.sub(r"\1", _DELIMITERS.sub(" ", text))
    text = _PLAIN_ROOT.sub(lambda found: f"\\sqrt{{{next(g for g in found.groups() if g is not None)}}}", text)
    text = _SHORT_FRACTION.sub(_whole_fraction, text)
    text = re.sub(r"\^\s*(?:\(([^()]*)\)|(-?\d{2,}|-\d))", lambda found: f"^{{{found[1] or found[2]}}}", text)
    return " ".join(text.split())


def plain(text: str) -> str:
    r"""Return the text in plain characters: \frac{1}{2} as 1/2, 4\frac{1}{3} as 4 1/3, \text{ cm} as cm, \{ as {."""
    text = latex(_EMPHASIS.sub("", text) if "\\" not in text else text.replace("**", ""))
    text = _SEGMENT.sub(r"\1", text)
    text = _REPEATING.sub(r"(\1)", text)
    text = re.sub(r"\\(?:cdot|times)(?![a-zA-Z])\s*", "*", text)
    text = re.sub(r"\\div(?![a-zA-Z])\s*", "/", text)
    for sign, name in _COMMANDS.items():
        text = re.sub(rf"\\{name}(?![a-zA-Z])\s?", sign, text)
    text = re.sub(r"\\?\b(?:infinity|inf)\b", "∞", text)
    for _ in range(8):  # from the innermost braces outwards
        before = text
        text = _TEXT.sub(r"\1", text)
        text = _RAISED.sub(_raised, text)
        text = _ROOT.sub(lambda found: f"sqrt({found[1].strip()})", text)
        text = _FRACTION.sub(_plain_fraction, text)
        if text == before:
            break
    text = re.sub(r"\\([{}$%#&_])", r"\1", text)
    text = " ".join(text.split()).rstrip("\\ ")
    return "∅" if text in ("{}", "{ }") else text


def _whole_fraction(found: re.Match[str]) -> str:
    above, below = (group for group in found.groups() if group is not None)
    return f"\\frac{{{above}}}{{{below}}}"


def _plain_fraction(found: re.Match[str]) -> str:
    """Return a/b; in brackets beside a letter or digit, for 1/2x would be 1/(2x)."""
    fraction = f"{_grouped(found[2])}/{_grouped(found[3])}"
    before, after = found.string[: found.start()][-1:], found.string[found.end() :][:1]
    if after.isalnum() or after in ("(", "\\", "{") or (not found[1] and (before.isalnum() or before == ")")):
        return f"{found[1] or ''}({fraction})"
    return f"{found[1].strip()} {fraction}" if found[1] else fraction


def _raised(found: re.Match[str]) -> str:
    before_digit = found.string[found.end() : found.end() + 1].isdigit()  # x^{1}2 is not x^12
    return found[1] + (f"({found[2].strip()})" if before_digit else _grouped(found[2]))


def _grouped(text: str) -> str:
    text = text.strip()
    return text if re.fullmatch(r"-?(?:\d+(?:\.\d+)?|[^\W\d_])", text) else f"({text})"


def key(text: str) -> str:
    """Return what two plain texts have in common if they say the same, letter by letter.

    White space counts between two letters or digits only; capitals count in variables only.
    """
    text = text.strip().rstrip(".,;:").strip("\"'").rstrip(".,;:").strip()
    word = r"[^\W\d_]{4,}" if re.search(r"[\d+*/^=<>_]", text) else r"[^\W\d_]{2,}"  # 2Ab is a product
    text = re.sub(word, lambda found: found[0].casefold(), text)
    text = re.sub(r"^(?:The|A|An)\b", lambda found: found[0].lower(), text)
    text = re.sub(r"(?<=\d), (?=\d{3}(?!\d))", ";", text)  # 1, 234 is not 1,234
    return re.sub(r"(?<!\w) | (?!\w)", "", _ARTICLE.sub("", text, count=1) if _ARTICLE.match(text) else text)
