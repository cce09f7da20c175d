"""Whether Ollama itself reads a folder of weights (`FROM .`), or needs a GGUF file.

Its converter (convert/convert.go and convert/tokenizer.go of August 2026) knows some architectures, and tells a
pre-tokenizer by the digest of its patterns. For another one it takes a default, which may give other ids.
"""

import hashlib
import json
from pathlib import Path

ARCHITECTURES = frozenset(
    "LlamaForCausalLM MixtralForCausalLM GemmaForCausalLM Gemma2ForCausalLM Gemma3ForCausalLM Gemma4ForCausalLM "
    "Phi3ForCausalLM Qwen2ForCausalLM Olmo3ForCausalLM CohereForCausalLM GptOssForCausalLM DeepseekV3ForCausalLM "
    "Glm4MoeLiteForCausalLM LagunaForCausalLM Lfm2ForCausalLM Lfm2MoeForCausalLM Qwen3NextForCausalLM "
    "NemotronHForCausalLM".split()
)
PRE_TOKENIZERS = {
    "d98f9631be1e9607a9848c26c1f9eac1aa9fc21ac6ba82a2fc0741af9780a48f": "llama-bpe",
    "03df5c5863ad70781dcfdef491ead25140f895fe8010964be0daefe27be32b02": "deepseek-llm",
    "21cde974d587f0d54dc8d56b183cc1e6239600172035c68fbd6d4b9f8da0576e": "deepseek-coder",
    "1ff7f41064896984db5d1bb6ff64fa4bc29007d08c1b439e505b7392777a319e": "qwen2",
    "00431aed57e696b747435f734d1e3b9b1bfd931a121fb5cac7129e97c181e9ba": "qwen35",
}


def unread_by_ollama(folder: Path) -> str:
    """Return why Ollama would not read these weights, or not with the ids of training; empty if it does."""
    (architecture,) = json.loads((folder / "config.json").read_text(encoding="utf-8"))["architectures"]
    if architecture not in ARCHITECTURES:
        return f"Ollama does not convert {architecture} itself"
    if pre_tokenizer(folder) is None:
        return "Ollama does not know the pre-tokenizer, and would take a default with other token ids"
    return ""


def pre_tokenizer(folder: Path) -> str | None:
    """Return the name by which Ollama knows the pre-tokenizer; None if it does not."""
    found = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["pre_tokenizer"] or {}
    patterns = [
        str(one["pattern"]["Regex"])
        for one in found.get("pretokenizers", [])
        if one["type"] == "Split" and "Regex" in one["pattern"]
    ]
    return PRE_TOKENIZERS.get(hashlib.sha256("".join(patterns).encode()).hexdigest())
