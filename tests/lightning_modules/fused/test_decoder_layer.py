"""The two halves of a fused layer are equal to their formulas, gradients included."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_modules.fused.decoder_layer import AfterAttention, BeforeAttention, LinearCall, NormWeights
from lightning_modules.fused.lora_linear import FusedLoRALinear
from lightning_modules.fused.packed_forward import ProductDtypes
from lightning_modules.internals.peft_internals import lora_parts

T, D, WIDE, HEADS, EPS = 6, 8, 12, 2, 1e-6
EXACT = ProductDtypes(torch.float32, torch.float32)
LAYERS = {
    "q": (D, D),
    "k": (D, D // 2),
    "v": (D, D // 2),
    "o": (D, D),
    "gate": (D, WIDE),
    "up": (D, WIDE),
    "down": (WIDE, D),
}


def layers(adapters: list[str]) -> Any:
    """Linear layers, some with adapters."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    plain = nn.ModuleDict({name: nn.Linear(*shape) for name, shape in LAYERS.items()})
    lm: Any = get_peft_model(plain, LoraConfig(r=3, target_modules=adapters))
    for parameter in lm.parameters():
        nn.init.normal_(parameter, std=0.3)
    return lm.base_model.model


def norm(x: Tensor, weight: Tensor) -> Tensor:
    return x * (x.square().mean(-1, keepdim=True) + EPS).rsqrt() * weight


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    left, right = x.chunk(2, -1)
    return x * cos[:, None] + torch.cat([-right, left], -1) * sin[:, None]


def call(*modules: Any) -> LinearCall:
    linear = FusedLoRALinear(modules)
    return LinearCall(linear, linear.weights(EXACT, may_stack=False))


def trained(modules: list[Any]) -> list[Tensor]:
    return [part.weight for m in modules if (parts := lora_parts(m)) for part in (parts.a, parts.b)]


def assert_same(
    ours: Callable[..., Any], theirs: Callable[..., Any], inputs: list[Tensor], weights: list[Tensor]
) -> None:
    results = []
    for function in (ours, theirs):
        outputs = [out for out in function(*inputs) if out is not None]
        grads = [torch.linspace(-1, 1, out.numel()).view_as(out) for out in outputs]
        results.append([*outputs, *torch.autograd.grad(outputs, [*inputs, *weights], grads)])
    for mine, right in zip(*results, strict=True):
        torch.testing.assert_close(mine, right, rtol=1e-4, atol=2e-5)


ADAPTERS = [["q", "k", "v", "o", "gate", "up", "down"], ["k", "up"], ["o", "down"]]


@pytest.mark.parametrize("adapters", ADAPTERS, ids=lambda names: "-".join(names))
def test_before_attention_is_norm_projection_and_rotation(adapters: list[str]) -> None:
    modules = layers(adapters)
    q, k, v = (modules[name] for name in "qkv")
    x, weight = torch.randn(T, D).requires_grad_(), torch.rand(D)
    angles = torch.randn(T, D // HEADS // 2).repeat(1, 2)
    cos, sin = angles.cos(), angles.sin()

    def ours(x: Tensor) -> Any:
        qkv = call(q, k, v)
        args = (NormWeights(weight, EPS), cos, sin, qkv, EXACT)
        return BeforeAttention.apply(x, *args, *qkv.linear.trained())  # type: ignore[no-untyped-call]

    def theirs(x: Tensor) -> Any:
        query, key, value = (layer(norm(x, weight)).view(T, -1, D // HEADS) for layer in (q, k, v))
        return rotated(query, cos, sin), rotated(key, cos, sin), value, x * 1

    assert_same(ours, theirs, [x], trained([q, k, v]))


@pytest.mark.parametrize("adapters", ADAPTERS, ids=lambda names: "-".join(names))
def test_after_attention_is_the_output_projection_and_the_gated_mlp(adapters: list[str]) -> None:
    modules = layers(adapters)
    o, gate, up, down = (modules[name] for name in ("o", "gate", "up", "down"))
    x, attended = torch.randn(2, T, D).unbind()
    inputs, weight = [x.requires_grad_(), attended.requires_grad_()], torch.rand(D)

    def ours(x: Tensor, attended: Tensor) -> Any:
        calls = call(o), call(gate, up), call(down)
        weights = [tensor for one in calls for tensor in one.linear.trained()]
        out = AfterAttention.apply(x, attended, NormWeights(weight, EPS), *calls, EXACT, *weights)  # type: ignore[no-untyped-call]
        return (out,)

    def theirs(x: Tensor, attended: Tensor) -> Any:
        y = x + o(attended)
        normed = norm(y, weight)
        return (y + down(F.silu(gate(normed)) * up(normed)),)

    assert_same(ours, theirs, inputs, trained([o, gate, up, down]))


def test_a_first_layer_without_adapters_needs_no_gradient_of_its_input() -> None:
    modules = layers(["o"])
    qkv = call(modules["q"], modules["k"], modules["v"])
    x, cos = torch.randn(T, D), torch.ones(T, D // HEADS)
    out = BeforeAttention.apply(x, NormWeights(torch.ones(D), EPS), cos, 0 * cos, qkv, EXACT)  # type: ignore[no-untyped-call]
    assert not any(part.requires_grad for part in out)
