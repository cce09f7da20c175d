"""Tiny models of many families, with random weights. The net trains some of them and must refuse the others."""

from typing import Any

import pytest

from tests.conftest import random_lm

MOE = {"moe_intermediate_size": 16, "num_experts": 4, "num_experts_per_tok": 2, "num_local_experts": 4}
WINDOW = {"sliding_window": 5}
# Family: settings of its config beside those of random_lm
TRAINED: dict[str, dict[str, Any]] = {
    "qwen2": {}, "qwen2-tied": {}, "qwen3": {}, "llama": {}, "mistral": WINDOW, "gemma": {}, "gemma3_text": WINDOW,
    "smollm3": {}, "olmo": {}, "olmo2": {}, "olmo3": WINDOW, "phi3": WINDOW, "gpt_neox": {}, "starcoder2": WINDOW,
    "glm": {}, "glm4": {}, "exaone4": WINDOW, "ernie4_5": {}, "apertus": {}, "hunyuan_v1_dense": {}, "seed_oss": {},
    "arcee": {}, "helium": {}, "qwen2_moe": MOE | {"shared_expert_intermediate_size": 16}, "qwen3_moe": MOE,
    "mixtral": MOE,
}  # fmt: skip
ELSE = "another loss than in transformers"
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "granite": ({"logits_scaling": 8.0}, ELSE), "cohere": ({}, ELSE), "cohere2": ({}, ELSE), "stablelm": ({}, ELSE),
    "nemotron": ({}, ELSE), "gemma2": ({"final_logit_softcapping": None}, "softcap"), "gpt_oss": (MOE, "s_aux"),
    "lfm2": ({"layer_types": ["conv", "full_attention"], "block_auto_adjust_ff_dim": False}, ELSE),
    "qwen3_5_text": ({}, ELSE), "opt": ({}, "built in another way"), "gpt2": ({}, "built in another way"),
    "bloom": ({}, "built in another way"), "phi": ({}, "output head with a bias"),
    "minicpm3": ({}, "fails in a check"), "deepseek_v3": ({}, "fails in a check"),
}  # fmt: skip
REQUIRED = {"qwen2", "qwen3", "llama", "mistral"}  # known to the oldest release of transformers that is allowed


def family_lm(family: str, settings: dict[str, Any]) -> Any:
    """Return a tiny model; skip the test if the installed transformers does not know the family."""
    try:
        return random_lm(family, **settings)
    except (KeyError, ValueError, AttributeError) as error:
        if family.partition("-")[0] in REQUIRED:
            raise
        pytest.skip(f"transformers does not know {family}: {error}")
