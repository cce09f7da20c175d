"""The tokens of a file with their types."""

from types import SimpleNamespace
from typing import Any

from gguf import TokenType

from datamodules.tokens.tokenizer import ThinkTokenizer
from lightning_modules.gguf.vocabulary import vocabulary
from tests.conftest import TINY


def test_tags_are_shown_controls_are_not_and_padding_is_unused() -> None:
    tokenizer = ThinkTokenizer.load(str(TINY), None, new_tokens=("<step>",))
    found = vocabulary(tokenizer, 640, (tokenizer.end_id,))
    kinds = dict(zip(found.tokens, found.types, strict=True))
    assert len(kinds) == 640  # no name twice
    assert [kinds[name] for name in ("<think>", "</think>", "<step>")] == [TokenType.USER_DEFINED] * 3
    assert [kinds[name] for name in ("<|im_start|>", "<|im_end|>", "<|endoftext|>")] == [TokenType.CONTROL] * 3
    assert found.types[len(tokenizer) :] == [TokenType.UNUSED] * (640 - len(tokenizer))
    assert kinds["Ġ"] == TokenType.NORMAL and found.merges[0].count(" ") == 1
    ids = tokenizer.full.get_vocab()
    assert all(ids[token] == i for i, token in enumerate(found.tokens[: len(tokenizer)]))


def test_a_token_that_looks_like_padding_keeps_its_name_alone(tiny_tokenizer: Any) -> None:
    """llama.cpp loads no file in which two tokens have one name."""
    full = SimpleNamespace(
        get_vocab=lambda: {"[PAD2]": 0, "[PAD2]_": 1}, added_tokens_decoder={}, backend_tokenizer=backend()
    )
    found = vocabulary(SimpleNamespace(full=full), 4, ())  # type: ignore[arg-type]
    assert found.tokens == ["[PAD2]", "[PAD2]_", "[PAD2]__", "[PAD3]"]


def backend() -> Any:
    from tokenizers import Tokenizer, models

    return Tokenizer(models.BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")]))


def test_an_end_that_the_tokenizer_calls_ordinary_is_a_control_token(tiny_tokenizer: ThinkTokenizer) -> None:
    ordinary = 100
    assert vocabulary(tiny_tokenizer, 640, (ordinary,)).types[ordinary] == TokenType.CONTROL
