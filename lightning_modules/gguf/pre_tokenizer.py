"""The known pre-tokenizer of llama.cpp that splits texts as a tokenizer does.

Byte-level BPE first splits a text, and merges bytes within each piece. A GGUF file only names a way to split; llama.cpp
has the patterns. Whether a name is right is seen on texts: every piece must be equal. A class or a name of a tokenizer
says nothing about it.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from errors import UserError

if TYPE_CHECKING:
    from tokenizers.pre_tokenizers import PreTokenizer

# The patterns are those of the models' own tokenizers. llama.cpp (src/llama-vocab.cpp, October 2026) has the same under
# these names; tests/lightning_modules/gguf/test_in_llama_cpp.py compares the ids.
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"  # openai/gpt-2, src/encoder.py
_CL100K = (  # Qwen2's and Llama 3's tokenizer.json; they differ in the digits of a piece
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True)
class Known:
    """A pre-tokenizer of llama.cpp: each pattern splits the pieces that the ones before it left."""

    name: str  # the value of tokenizer.ggml.pre
    patterns: tuple[str, ...]
    ignore_merges: bool = False  # whether a piece that is a token stays whole, whatever the merges say


KNOWN = (
    Known("qwen2", (_CL100K % "",)),
    Known("llama-bpe", (_CL100K % "{1,3}",), ignore_merges=True),
    Known("smaug-bpe", (_CL100K % "{1,3}",)),
    Known("smollm", (r"\p{N}", _GPT2)),  # Digits, one by one, before the pattern of GPT-2, in SmolLM's tokenizer.json
    Known("gpt-2", (_GPT2,)),
    Known("default", (r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", "[0-9][0-9][0-9]")),  # llama.cpp's own, and Falcon's
)
# All are in Unicode's form NFC: llama.cpp does not normalize, so a text in another form has other ids there
TEXTS = (
    "Solve x + 5 = 12", "It's 12,345.67 at 9:30, isn't it? I'LL say they'Ve; don'T.", "1234567890 ½ ² Ⅻ ٣٤ 12a34",
    "a  b   c    d ", "  leading", "trailing  ", "\n\n\nx\r\n  y\t\tz \n ", "tab\tseparated\n\ttext\n  - list\n",
    "f(x) = x**2 + 3*x - 1;  // ok?!", "```python\nfor n in range(3):\n    print(n * (n + 1) // 2)\n```\n",
    r"\frac{1}{2}, \boxed{51} and $a^2+b^2=c^2$, x_1≤y², 5€ £3 50 % ~ | ^ `", "Löse x² − 3x = 0 nach x auf. Straße",
    "计算 17 × 24。好的，答案是 408！", "これはテストです。12個", "한국어 시험 3번", "Привет, мир! 2026",
    "مرحبا ١٢٣ بالعالم", "हिन्दी में क्या है? १२", "สวัสดี", "🙂👍🏽👨‍👩‍👧 ok",
    "\u200bzero\u00a0width\u3000space\u2028line",
    "<think>a</think><tag> </tag>", "CamelCase snake_case kebab-case HTTPServer v2.0.1-rc3",
    "http://example.org/?q=1&r=%20#top me@example.org", "'s 'S 't 're 'RE x's'd", "...!!! ?? -- --- ___ **bold** #1",
    "\x01\x7f", " \n", "\n ", " ", "x\n\n", "(3)\n\n4)",
)  # fmt: skip


def find_pre_tokenizer(full: Any) -> str:
    """Return the name of the known pre-tokenizer that splits TEXTS as a transformers tokenizer does.

    Raises UserError if none does, or if the tokenizer is no byte-level BPE as llama.cpp computes it.
    """
    state = json.loads(full.backend_tokenizer.to_str())
    model = state["model"]
    unlike = {
        "is no byte-level BPE": model["type"] != "BPE" or bool(model.get("byte_fallback")),
        "drops merges at random": bool(model.get("dropout")),
        "marks the ends of words": bool(model.get("continuing_subword_prefix") or model.get("end_of_word_suffix")),
        "changes texts before it splits them": _changes(full.backend_tokenizer.normalizer),
        "has tokens that depend on the text beside them": any(
            token.lstrip or token.rstrip or token.single_word
            for token in full.backend_tokenizer.get_added_tokens_decoder().values()
        ),
    }
    for what, found in unlike.items():
        if found:
            raise _refusal(what)
    pieces = split(full.backend_tokenizer.pre_tokenizer, TEXTS)
    fits = [one for one in KNOWN if split(pre_tokenizer(one), TEXTS) == pieces]
    for one in fits:
        if one.ignore_merges == bool(model.get("ignore_merges")):
            return one.name
    if fits:
        raise _refusal(f"splits texts like {fits[0].name} of llama.cpp, but merges otherwise (ignore_merges)")
    names = ", ".join(one.name for one in KNOWN)
    raise _refusal(f"splits texts like none of the pre-tokenizers of llama.cpp that are known here ({names})")


def pre_tokenizer(known: Known) -> "PreTokenizer":
    """Return a known pre-tokenizer in the tokenizers library."""
    from tokenizers import Regex, pre_tokenizers

    parts: list[PreTokenizer] = [pre_tokenizers.Split(Regex(one), "isolated") for one in known.patterns]
    return pre_tokenizers.Sequence([*parts, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def split(pre_tokenizer: "PreTokenizer | None", texts: Sequence[str]) -> list[list[str]]:
    """Return the pieces of each text, in the characters that stand for bytes."""
    if pre_tokenizer is None:
        return [[text] for text in texts]
    return [[piece for piece, _ in pre_tokenizer.pre_tokenize_str(text)] for text in texts]


def _changes(normalizer: Any) -> bool:
    return normalizer is not None and any(normalizer.normalize_str(text) != text for text in TEXTS)


def _refusal(problem: str) -> UserError:
    fix = "export without --gguf, for transformers or vLLM"
    return UserError("--gguf", None, f"the tokenizer of the base {problem}, so a GGUF file would have other ids", fix)
