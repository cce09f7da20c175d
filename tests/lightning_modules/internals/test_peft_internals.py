"""Each private API of peft that the project uses does what its docstring says."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lightning_modules.internals.peft_internals import (
    adapter_tensors,
    base_layer,
    decompose_,
    file_key_layer,
    is_a_key,
    is_trained_key,
    lora_config_fields,
    lora_file_key,
    lora_layers,
    lora_parts,
    new_embeddings_file_key,
    not_plain_lora_reason,
    switched_reason,
)
from tests.conftest import random_lm


def adapted(**settings: Any) -> Any:
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    config = LoraConfig(task_type="CAUSAL_LM", **{"r": 4, "target_modules": ["q_proj", "down_proj"]} | settings)
    lm = get_peft_model(random_lm("qwen2"), config)
    for parameter in lm.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.1)
    return lm


@pytest.mark.slow
@pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="only bitsandbytes asks for the compiler")
def test_loading_does_not_import_the_compiler() -> None:
    code = "import os, sys; from lightning_modules.internals import peft_internals; peft_internals.load()\n"
    code += "assert 'peft' in sys.modules and 'torch._inductor.compile_fx' not in sys.modules\n"
    code += "assert 'TORCHDYNAMO_DISABLE' not in os.environ"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_layers_output_is_that_of_its_parts() -> None:
    found = dict(lora_layers(adapted(lora_alpha=6)))
    assert set(found) == {f"model.layers.{k}.{name}" for k in (0, 1) for name in ("self_attn.q_proj", "mlp.down_proj")}
    for layer in found.values():
        parts, x = lora_parts(layer), torch.randn(3, layer.in_features)
        assert parts is not None and (parts.rank, parts.scale) == (4, 1.5)
        expected = base_layer(layer)(x) + parts.scale * parts.b(parts.a(x))
        torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-5)
        assert type(base_layer(layer)) is nn.Linear and not_plain_lora_reason(layer) is None


def test_a_layer_without_an_adapter_is_its_own_base() -> None:
    linear = nn.Linear(2, 3)
    assert base_layer(linear) is linear and lora_parts(linear) is None and not_plain_lora_reason(linear) is None


@pytest.mark.parametrize(("settings", "reason"), [
    ({"use_dora": True}, "not plain LoRA"), ({"lora_dropout": 0.1}, "dropout"),
    ({"lora_bias": True, "target_modules": ["q_proj"]}, "biases"),
])  # fmt: skip
def test_adapters_that_compute_more_are_told_apart(settings: dict[str, Any], reason: str) -> None:
    _, layer = next(lora_layers(adapted(**settings)))
    assert reason in str(not_plain_lora_reason(layer))


def test_an_adapter_that_takes_no_part_is_told_apart() -> None:
    lm = adapted()
    _, layer = next(lora_layers(lm))
    assert switched_reason(layer) is None
    with lm.disable_adapter():
        assert "switched off" in str(switched_reason(layer))
    lm.merge_adapter()
    assert "merged" in str(switched_reason(layer))
    lm.unmerge_adapter()
    assert switched_reason(layer) is None
    lm.add_adapter("other", lm.peft_config["default"])
    lm.set_adapter("other")
    assert "other adapters" in str(switched_reason(layer))


@pytest.mark.parametrize("init", ["pissa", "pissa_niter_4", "olora"])
def test_a_decomposition_leaves_the_layers_output_as_it_was(init: str) -> None:
    lm = adapted()
    _, layer = next(lora_layers(lm))
    x, before = torch.randn(3, 32), base_layer(layer).weight.clone()
    decompose_(layer, init)
    assert not torch.allclose(base_layer(layer).weight, before, atol=1e-3)
    torch.testing.assert_close(layer(x), nn.functional.linear(x, before, base_layer(layer).bias), rtol=1e-4, atol=1e-4)


def test_names_in_an_adapters_file_are_those_that_peft_writes(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    lm = adapted(trainable_token_indices={"embed_tokens": [3, 4], "lm_head": [3, 4]})
    lm.save_pretrained(tmp_path, save_embedding_layers=False)
    names = load_file(tmp_path / "adapter_model.safetensors").keys()
    ours = {lora_file_key(name, matrix) for name, _ in lora_layers(lm) for matrix in "AB"}
    assert names == ours | {new_embeddings_file_key(name) for name in ("model.embed_tokens", "lm_head")}
    assert {name for name in ours if is_a_key(name)} == {lora_file_key(name, "A") for name, _ in lora_layers(lm)}


def test_the_tensors_of_a_file_are_known_by_name_and_share_the_memory_of_the_model(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    lm = adapted(trainable_token_indices={"embed_tokens": [3, 4]}, use_dora=True)
    lm.save_pretrained(tmp_path, save_embedding_layers=False)
    held = load_file(tmp_path / "adapter_model.safetensors")
    assert all(is_trained_key(name) for name in held)
    assert not is_trained_key("base_model.model.model.embed_tokens.weight")
    assert {file_key_layer(name) for name in held} == {None, *(name for name, _ in lora_layers(lm))}
    tensors = {name: tensor for name, tensor in adapter_tensors(lm).items() if file_key_layer(name)}
    assert tensors.keys() == {name for name in held if file_key_layer(name)}
    for tensor in tensors.values():
        tensor.fill_(7)
    assert all((p == 7).all() for name, p in lm.named_parameters() if ".lora_" in name)


def test_variants_of_lora_are_known_by_their_setting() -> None:
    fields = lora_config_fields()
    assert fields["use_dora"] is True
    assert fields["r"] is fields["init_lora_weights"] is False
