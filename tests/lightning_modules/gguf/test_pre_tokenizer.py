"""A tokenizer gets the name of the pre-tokenizer that splits texts alike, or none."""

from itertools import combinations
from types import SimpleNamespace
from typing import Any

import pytest
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers

from errors import UserError
from lightning_modules.gguf.pre_tokenizer import KNOWN, TEXTS, find_pre_tokenizer, pre_tokenizer, split
from tests.conftest import REAL_TOKENIZER, TINY

BYTES = {token: i for i, token in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}


def of(pre: Any, normalizer: Any = None, **model: Any) -> Any:
    """A tokenizer of transformers with a pre-tokenizer."""
    backend = Tokenizer(models.BPE(BYTES, [], **model))
    backend.pre_tokenizer = pre
    if normalizer is not None:
        backend.normalizer = normalizer
    return SimpleNamespace(backend_tokenizer=backend)


def byte_level(*before: Any) -> Any:
    """The pattern of GPT-2, behind other parts."""
    return pre_tokenizers.Sequence([*before, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])


def test_the_embedded_tokenizer_splits_like_qwen2_whatever_its_class_is() -> None:
    backend = Tokenizer.from_file(str(TINY / "tokenizer.json"))
    assert find_pre_tokenizer(SimpleNamespace(backend_tokenizer=backend)) == "qwen2"


@pytest.mark.skipif(REAL_TOKENIZER is None, reason="needs THINKWRIGHT_REAL_TOKENIZER")
def test_the_tokenizer_of_qwen_splits_like_qwen2() -> None:
    backend = Tokenizer.from_file(f"{REAL_TOKENIZER}/tokenizer.json")
    assert find_pre_tokenizer(SimpleNamespace(backend_tokenizer=backend)) == "qwen2"


@pytest.mark.parametrize(
    ("tokenizer", "name"),
    [
        (of(byte_level()), "gpt-2"),
        (of(byte_level(pre_tokenizers.Digits(individual_digits=True))), "smollm"),  # as SmolLM2 has it
        (of(byte_level(), normalizers.NFC()), "gpt-2"),
        (of(pre_tokenizer(KNOWN[1]), ignore_merges=True), "llama-bpe"),
        (of(pre_tokenizer(KNOWN[1])), "smaug-bpe"),  # the same pieces, which llama.cpp merges otherwise
    ],
)
def test_the_name_comes_from_the_pieces(tokenizer: Any, name: str) -> None:
    assert find_pre_tokenizer(tokenizer) == name


def with_token(token: AddedToken) -> Any:
    tokenizer = of(byte_level())
    tokenizer.backend_tokenizer.add_tokens([token])
    return tokenizer


UNKNOWN = {
    "splits texts like none of the pre-tokenizers": of(byte_level(pre_tokenizers.Digits())),
    "splits texts like none of": of(byte_level(pre_tokenizers.Punctuation())),
    "like none of the pre-tokenizers of llama.cpp that": of(pre_tokenizers.ByteLevel(add_prefix_space=True)),
    "like none": of(pre_tokenizers.Split(Regex(r"\s+"), "isolated")),
    "none of the pre-tokenizers": of(pre_tokenizers.Metaspace()),
    "changes texts before": of(byte_level(), normalizers.Lowercase()),
    "merges otherwise": of(byte_level(), ignore_merges=True),
    "is no byte-level BPE": of(byte_level(), byte_fallback=True),
    "drops merges at random": of(byte_level(), dropout=0.1),
    "has tokens that depend on the text beside them": with_token(AddedToken("<x>", rstrip=True)),
}


@pytest.mark.parametrize("problem", UNKNOWN)
def test_another_tokenizer_is_refused_in_one_line_that_says_why(problem: str) -> None:
    with pytest.raises(UserError, match=f"the tokenizer of the base .*{problem}.*other ids. Export without --gguf"):
        find_pre_tokenizer(UNKNOWN[problem])


def test_the_texts_tell_any_two_known_ones_apart() -> None:
    for first, second in combinations(KNOWN, 2):
        same = split(pre_tokenizer(first), TEXTS) == split(pre_tokenizer(second), TEXTS)
        assert same == (first.patterns == second.patterns), (first.name, second.name)
