from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from datamodules.tokens.tokenizer import ThinkTokenizer
from lightning_modules.generation.folded_weights import FoldedWeights, Linear, not_foldable_reason
from lightning_modules.net.lora import LoraSettings
from lightning_modules.net.think_net import ThinkNet
from tests.conftest import random_lm
from tests.lightning_modules.generation.conftest import ADAPTERS, MakeNet


@pytest.mark.parametrize("adapters", ADAPTERS)
def test_folding_leaves_every_weight_as_it_was_to_the_bit(
    adapters: str, make_net: MakeNet, tiny_tokenizer: ThinkTokenizer
) -> None:
    net = make_net("qwen2", adapters, torch.bfloat16)
    before = {name: (tensor.data_ptr(), tensor.clone()) for name, tensor in net.state_dict().items()}
    weights = FoldedWeights(net, len(tiny_tokenizer))
    weights.logits(weights.embed(torch.tensor([1, 2])))
    after = net.state_dict()
    assert before.keys() == after.keys()
    assert all(after[name].data_ptr() == at and torch.equal(after[name], was) for name, (at, was) in before.items())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, 5, 70])
def test_stacked_linear_layers_give_what_each_gives(dtype: torch.dtype, rows: int) -> None:
    torch.manual_seed(0)
    layers = [nn.Linear(24, width, bias=bias).to(dtype) for width, bias in ((40, True), (8, False), (16, True))]
    x = torch.randn(rows, 24, dtype=dtype)
    for stack in (True, False):
        together = Linear([one.weight.detach() for one in layers], [one.bias for one in layers], stack)
        tolerance = 1e-6 if dtype == torch.float32 else 2e-2
        with torch.no_grad():
            apart = torch.cat([one(x) for one in layers], -1)
            torch.testing.assert_close(together(x), apart, rtol=tolerance, atol=tolerance)
        assert len(together.parts) == (1 if stack else 3)


def change(kind: str) -> Callable[[ThinkNet], Any]:
    def hook(net: ThinkNet) -> None:
        net.causal_lm.base_model.layers[1].mlp.register_forward_hook(lambda *_: None)

    def switched(net: ThinkNet) -> None:
        net.lm.disable_adapter_layers()

    def other_linear(net: ThinkNet) -> None:
        class Other(nn.Linear):
            pass

        net.causal_lm.base_model.layers[0].mlp.down_proj = Other(48, 32, bias=False)

    def other_head(net: ThinkNet) -> None:
        net.causal_lm.get_output_embeddings().base = nn.Sequential(nn.Linear(32, 640))

    def rotary(net: ThinkNet) -> None:
        net.causal_lm.base_model.rotary_emb.rope_type = "dynamic"

    def devices(net: ThinkNet) -> None:
        net.causal_lm.base_model.norm.to("meta")

    changes = {
        "modules have hooks": hook,
        "adapters are switched off": switched,
        "Other holds the weights": other_linear,
        "Sequential holds the weights": other_head,
        "rotary embedding is dynamic": rotary,
        "several devices": devices,
    }
    return changes[kind]


@pytest.mark.parametrize(
    "reason",
    [
        "modules have hooks", "adapters are switched off", "Other holds the weights", "Sequential holds the weights",
        "rotary embedding is dynamic", "several devices",
    ],
)  # fmt: skip
def test_what_folding_would_pass_over_is_told(reason: str, make_net: MakeNet) -> None:
    net = make_net()
    assert not_foldable_reason(net) is None
    change(reason)(net)
    assert reason in (not_foldable_reason(net) or "")


def test_other_architectures_and_other_adapters_are_told(make_net: MakeNet, tiny_tokenizer: ThinkTokenizer) -> None:
    assert "Qwen3DecoderLayer" in (not_foldable_reason(make_net("qwen3")) or "")
    dora = ThinkNet(random_lm(), tiny_tokenizer, LoraSettings(peft={"use_dora": True}))
    assert "not plain LoRA" in (not_foldable_reason(dora) or "")


def test_dropout_is_no_obstacle_since_generation_has_none(tiny_tokenizer: ThinkTokenizer) -> None:
    assert not_foldable_reason(ThinkNet(random_lm(), tiny_tokenizer, LoraSettings(dropout=0.5))) is None
