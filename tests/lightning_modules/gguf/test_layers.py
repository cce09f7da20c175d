"""Which bases have a place in a GGUF file, and the order of rows in it."""

from typing import Any

import pytest
import torch
from transformers import AutoConfig

from errors import UserError
from lightning_modules.gguf.layers import check_layers, file_tensors, in_file_order
from tests.conftest import random_lm

LLAMA3 = {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 64}  # fmt: skip
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 64}
REFUSED: dict[str, tuple[str, dict[str, Any]]] = {
    "of the architecture qwen3, and a GGUF file is written for qwen2 and llama only": ("qwen3", {}),
    "of the architecture gemma2": ("gemma2", {}),
    "the activation gelu": ("llama", {"hidden_act": "gelu"}),
    "layers that see a window of tokens": (
        "qwen2",
        {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 0},
    ),
    "biases in the layers of llama": ("llama", {"attention_bias": True}),
    "biases in the layers": ("llama", {"mlp_bias": True}),
    "heads of a width of their own": ("qwen2", {"head_dim": 16}),
    "positions of the base .yarn.": ("llama", {"rope_parameters": YARN}),
    "positions of the base .llama3.": ("qwen2", {"rope_parameters": LLAMA3}),
}


@pytest.mark.parametrize("problem", REFUSED)
def test_a_base_that_llama_cpp_would_compute_otherwise_is_refused_in_one_line(problem: str) -> None:
    kind, settings = REFUSED[problem]
    with pytest.raises(UserError, match=f"--gguf: the .*{problem}.* Export without --gguf, for transformers or vLLM"):
        check_layers(random_lm(kind, **settings).config)


@pytest.mark.parametrize("kind", ["qwen2", "llama"])
def test_usual_bases_have_a_place(kind: str) -> None:
    check_layers(random_lm(kind).config)
    check_layers(AutoConfig.for_model(kind))
    if kind == "llama":
        check_layers(random_lm(kind, rope_parameters=LLAMA3).config)


def test_the_halves_of_each_head_are_interleaved_and_nothing_else_moves() -> None:
    weight = torch.arange(16.0)[:, None].expand(16, 3)
    assert in_file_order(weight, 2)[:, 0].tolist() == [0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15]
    assert in_file_order(weight, 0) is weight


@pytest.mark.parametrize("kind", ["qwen2", "qwen2-tied", "llama"])
def test_every_weight_has_a_name_and_a_tied_head_has_none(kind: str) -> None:
    model = random_lm(kind)
    tensors = file_tensors(model)
    names = {one.name for one in tensors}
    assert len(names) == len(tensors) == len(dict(model.named_parameters()))
    assert ("output.weight" in names) == ("tied" not in kind)
    heads = {one.name.split(".")[2]: one.heads for one in tensors if one.heads}
    assert heads == ({"attn_q": 4, "attn_k": 2} if kind == "llama" else {})
