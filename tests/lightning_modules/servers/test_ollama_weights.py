"""Which folders Ollama's own converter reads with the ids of training."""

import json
from pathlib import Path

import pytest

from lightning_modules.servers.ollama_weights import pre_tokenizer, unread_by_ollama
from tests.conftest import TINY

QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)


def folder(place: Path, patterns: list[str], architecture: str = "Qwen2ForCausalLM") -> Path:
    parts = [{"type": "Split", "pattern": {"Regex": one}} for one in patterns]
    found = {"type": "Sequence", "pretokenizers": [*parts, {"type": "ByteLevel"}]}
    (place / "tokenizer.json").write_text(json.dumps({"pre_tokenizer": found}))
    (place / "config.json").write_text(json.dumps({"architectures": [architecture]}))
    return place


@pytest.mark.parametrize(("pattern", "name"), [(QWEN2, "qwen2"), (LLAMA3, "llama-bpe"), (r"\s+", None)])
def test_a_pre_tokenizer_is_known_by_its_patterns(tmp_path: Path, pattern: str, name: str | None) -> None:
    assert pre_tokenizer(folder(tmp_path, [pattern])) == name
    assert ("pre-tokenizer" in unread_by_ollama(tmp_path)) == (name is None)


def test_a_tokenizer_without_a_pattern_is_not_known(tmp_path: Path) -> None:
    """Ollama takes a default for it, which need not split as the tokenizer does."""
    assert pre_tokenizer(folder(tmp_path, [])) is None
    (tmp_path / "tokenizer.json").write_text(json.dumps({"pre_tokenizer": None}))
    assert pre_tokenizer(tmp_path) is None


def test_an_architecture_that_ollama_does_not_convert_is_named(tmp_path: Path) -> None:
    reason = unread_by_ollama(folder(tmp_path, [QWEN2], "StableLmForCausalLM"))
    assert reason == "Ollama does not convert StableLmForCausalLM itself"


def test_the_embedded_model_is_read() -> None:
    assert unread_by_ollama(TINY) == ""
