from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from datamodules.tokens.tokenizer import ThinkTokenizer
from errors import UserError
from lightning_modules.net.activation_checkpointing import checkpoint_activations
from lightning_modules.net.base_model import load_base
from lightning_modules.net.lora import LoraSettings
from lightning_modules.net.quantize import check_quantize
from lightning_modules.net.think_net import ThinkNet
from tests.conftest import TINY, random_lm

pytest.importorskip("bitsandbytes")
MakeBatch = Callable[..., Any]
LORA = LoraSettings(rank=4, target_modules="all-linear")
DORA = LoraSettings(rank=4, target_modules="all-linear", peft={"use_dora": True})


def fill(net: ThinkNet) -> None:
    """Give all trained tensors values: LoRA's B starts at 0."""
    torch.manual_seed(0)
    for p in net.parameters():
        if p.requires_grad:
            nn.init.normal_(p, std=0.05)


def gradients(net: ThinkNet, batch: Any) -> list[torch.Tensor]:
    trained = [p for p in net.parameters() if p.requires_grad]
    return list(torch.autograd.grad(net(batch).total, trained))


@pytest.fixture
def folder(tmp_path: Path) -> str:
    random_lm("qwen2").save_pretrained(tmp_path)
    return str(tmp_path)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_linear_layers_take_four_bits_per_weight_and_the_rest_keeps_its_dtype(
    dtype: Any, folder: str, tiny_tokenizer: ThinkTokenizer
) -> None:
    base = load_base(folder, None, dtype, quantize="nf4")
    kept = {name: p for name, p in base.named_parameters() if p.dtype != torch.uint8}
    assert {p.dtype for p in kept.values()} == {getattr(torch, dtype)}
    assert {name.rsplit(".", 2)[-2] for name, p in kept.items() if p.ndim > 1} == {"embed_tokens", "lm_head"}
    held = sum(p.numel() for p in base.parameters() if p.dtype == torch.uint8)
    weights = sum(p.numel() for name, p in random_lm("qwen2").named_parameters() if p.ndim > 1 and name not in kept)
    assert held == weights / 2
    net = ThinkNet(base, tiny_tokenizer, DORA)
    assert {p.dtype for p in net.parameters() if p.requires_grad} == {torch.float32}


@pytest.mark.parametrize("lora", [LORA, DORA], ids=["plain", "dora"])
def test_it_computes_as_its_dequantized_weights_do(
    lora: LoraSettings, folder: str, tiny_tokenizer: ThinkTokenizer, make_batch: MakeBatch
) -> None:
    from bitsandbytes.functional import dequantize_4bit

    whole, base = random_lm("qwen2"), load_base(folder, None, "float32", quantize="nf4")
    for name, module in base.named_modules():
        if type(module).__name__ == "Linear4bit":
            weight: Any = module.weight
            whole.get_submodule(name).weight.data = dequantize_4bit(weight.data, weight.quant_state)
    nets = [ThinkNet(model, tiny_tokenizer, lora) for model in (base, whole)]
    batch = make_batch(0, 3, 9)
    for net in nets:
        fill(net)
    torch.testing.assert_close(nets[0](batch).total, nets[1](batch).total, rtol=1e-5, atol=1e-5)
    for one, two in zip(*(gradients(net, batch) for net in nets), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("lora", [LORA, DORA], ids=["plain", "dora"])
def test_gradients_are_the_same_after_evaluation_and_with_checkpointing(
    lora: LoraSettings, tiny_tokenizer: ThinkTokenizer, make_batch: MakeBatch
) -> None:
    """By default bitsandbytes repacks the weights when a CPU evaluates, and no gradient passes them from then on."""
    batch, found = make_batch(0, 3), []
    for checkpointing in (False, True):
        base = load_base(str(TINY), None, "float32", quantize="nf4")
        checkpoint_activations(base, checkpointing)
        net = ThinkNet(base, tiny_tokenizer, lora)
        fill(net)
        if checkpointing:
            net.eval()
            with torch.no_grad():
                net(batch)
            net.train()
        found.append(gradients(net, batch))
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two)


@pytest.mark.parametrize(
    ("lora", "from_scratch", "message"),
    [
        (None, False, r"model\.quantize: 'nf4' holds weights that cannot be trained\. Set model\.lora"),
        (None, True, r"model\.quantize: 'nf4' needs a pretrained base"),
        (LoraSettings(peft={"init_lora_weights": "pissa"}), False, r"'nf4' and init_lora_weights 'pissa' both change"),
    ],
)
def test_bases_that_cannot_be_quantized_are_refused(
    lora: LoraSettings | None, from_scratch: bool, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        check_quantize("nf4", lora, from_scratch)
    check_quantize(None, lora, from_scratch)


def test_a_missing_package_is_named_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    check_quantize("nf4", LORA, False)
    monkeypatch.setattr("lightning_modules.net.quantize.find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"needs a package.*pip install -c constraints\.txt bitsandbytes"):
        check_quantize("nf4", LORA, False)
