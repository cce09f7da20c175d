from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_modules.fused.elementwise import (
    renorm,
    rms_norm,
    rms_norm_backward,
    rotate,
    swiglu,
    swiglu_again,
    swiglu_backward,
    widened,
)

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def numbers(*shape: int, seed: int = 0, device: str = "cpu", dtype: torch.dtype = torch.float64) -> Tensor:
    made = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return made.to(device, dtype)


def gradients(function: Callable[..., Tensor], grad: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    """Gradients by autograd, in float64."""
    leaves = [one.double().requires_grad_() for one in inputs]
    return torch.autograd.grad(function(*leaves), leaves, grad.double())


def assert_near(ours: Tensor, theirs: Tensor) -> None:
    limit = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 3e-3}[ours.dtype]
    torch.testing.assert_close(ours.double(), theirs.double(), rtol=limit, atol=limit)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("width", [48, 2048])
def test_the_norm_and_its_gradient_with_the_residual(device: str, dtype: torch.dtype, width: int) -> None:
    x, grad, residual = (numbers(7, width, seed=s, device=device, dtype=dtype) for s in range(3))
    weight = numbers(width, seed=3, device=device, dtype=dtype)

    def right(x: Tensor) -> Tensor:
        return x * (x.square().mean(-1, keepdim=True) + 1e-6).rsqrt() * weight.double()

    normed, scale = rms_norm(x, weight, 1e-6)
    assert_near(normed, right(x.double()))
    (through,) = gradients(right, grad, x)
    before = x.clone()
    for given in (x, widened(x)):
        assert torch.equal(renorm(given, weight, scale, dtype), normed)
        backward = rms_norm_backward(grad, given, weight, scale, residual)
        assert backward.dtype == dtype
        assert_near(backward, through + residual)
    assert torch.equal(x, before)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_gate_and_its_gradient(device: str, dtype: torch.dtype) -> None:
    gate, up, grad = (numbers(5, 700, seed=s, device=device, dtype=dtype) for s in range(3))
    assert_near(swiglu(gate, up), F.silu(gate.double()) * up.double())
    hidden, activated = swiglu_again(gate, up)
    assert torch.equal(hidden, swiglu(gate, up))
    theirs = gradients(lambda g, u: F.silu(g) * u, grad, gate, up)
    for known in (activated, None):
        both = torch.empty(5, 1400, dtype=dtype, device=device)
        swiglu_backward(grad.clone(), gate, up, both[:, :700], both[:, 700:], known)
        for ours, right in zip(torch.split(both, 700, 1), theirs, strict=True):
            assert_near(ours, right)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("strided", [False, True])
def test_the_rotation_is_that_of_transformers_and_can_be_undone(device: str, dtype: torch.dtype, strided: bool) -> None:
    from transformers.models.qwen2.modeling_qwen2 import apply_rotary_pos_emb

    x = numbers(6, 3, 16, device=device, dtype=dtype)
    if strided:  # as attention's backward pass may return it
        x = x.transpose(0, 1).contiguous().transpose(0, 1)
    angles = numbers(6, 8, seed=1, device=device)
    cos, sin = (part.repeat(1, 2).to(dtype) for part in (angles.cos(), angles.sin()))
    rotated = rotate(x, cos, sin)
    q = x.double().transpose(0, 1)[None]
    assert_near(rotated, apply_rotary_pos_emb(q, q, cos.double()[None], sin.double()[None])[0][0].transpose(0, 1))
    assert_near(rotate(rotated, cos, sin, back=True), x)
    assert torch.equal(rotate(x, cos, sin, out=x), rotated)
