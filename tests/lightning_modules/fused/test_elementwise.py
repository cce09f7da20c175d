from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_modules.fused.elementwise import renorm, rms_norm, rms_norm_backward, rotate, swiglu, swiglu_backward
from lightning_modules.net.loss import cross_entropy_

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def numbers(*shape: int, seed: int = 0, device: str = "cpu", dtype: torch.dtype = torch.float64) -> Tensor:
    made = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return made.to(device, dtype)


def gradients(function: Callable[..., Tensor], grad: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    """By autograd, in float64."""
    leaves = [one.double().requires_grad_() for one in inputs]
    return torch.autograd.grad(function(*leaves), leaves, grad.double())


def assert_near(ours: Tensor, theirs: Tensor) -> None:
    limit = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 3e-3}[ours.dtype]
    torch.testing.assert_close(ours.double(), theirs.double(), rtol=limit, atol=limit)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("width", [48, 2048])
def test_the_norm_and_its_gradient_beside_the_residual(device: str, dtype: torch.dtype, width: int) -> None:
    x, grad, residual = (numbers(7, width, seed=s, device=device, dtype=dtype) for s in range(3))
    weight = numbers(width, seed=3, device=device, dtype=dtype)

    def right(x: Tensor) -> Tensor:
        return x * (x.square().mean(-1, keepdim=True) + 1e-6).rsqrt() * weight.double()

    normed, scale = rms_norm(x, weight, 1e-6)
    assert_near(normed, right(x.double()))
    assert torch.equal(renorm(x, weight, scale), normed)
    (through,) = gradients(right, grad, x)
    assert_near(rms_norm_backward(grad, x, weight, scale, residual), through + residual)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_gate_and_its_gradient(device: str, dtype: torch.dtype) -> None:
    gate, up, grad = (numbers(5, 700, seed=s, device=device, dtype=dtype) for s in range(3))
    assert_near(swiglu(gate, up), F.silu(gate.double()) * up.double())
    both = torch.empty(5, 1400, dtype=dtype, device=device)
    swiglu_backward(grad.clone(), gate, up, both[:, :700], both[:, 700:])
    for ours, theirs in zip(
        torch.split(both, 700, 1), gradients(lambda g, u: F.silu(g) * u, grad, gate, up), strict=True
    ):
        assert_near(ours, theirs)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("strided", [False, True])
def test_the_rotation_is_transformers_and_turns_back(device: str, dtype: torch.dtype, strided: bool) -> None:
    from transformers.models.qwen2.modeling_qwen2 import apply_rotary_pos_emb

    x = numbers(6, 3, 16, device=device, dtype=dtype)
    if strided:  # as attention's backward pass may return it
        x = x.transpose(0, 1).contiguous().transpose(0, 1)
    angles = numbers(6, 8, seed=1, device=device)
    cos, sin = (part.repeat(1, 2).to(dtype) for part in (angles.cos(), angles.sin()))
    turned = rotate(x, cos, sin)
    q = x.double().transpose(0, 1)[None]
    assert_near(turned, apply_rotary_pos_emb(q, q, cos.double()[None], sin.double()[None])[0][0].transpose(0, 1))
    assert_near(rotate(turned, cos, sin, back=True), x)
    assert torch.equal(rotate(x, cos, sin, out=x), turned)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("smoothing", "z_loss", "weighted"), [(0.0, 0.0, False), (0.1, 1e-2, True)])
def test_the_kernel_of_the_loss_is_the_loss(
    dtype: torch.dtype, smoothing: float, z_loss: float, weighted: bool
) -> None:
    logits = numbers(9, 20_001, dtype=dtype) * 3
    targets = torch.arange(9) * 2000
    weights = torch.rand(9) if weighted else None
    mine: list[Any] = []
    for device in ("cpu", "cuda"):
        given = logits.to(device, torch.float32 if device == "cpu" else dtype, copy=True)
        at = None if weights is None else weights.to(device)
        sums = cross_entropy_(given, targets.to(device), at, smoothing, z_loss, slope=True)
        mine.append([part.cpu() for part in (*sums, given.float())])
    for ours, theirs in zip(*mine, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-2 if dtype != torch.float32 else 1e-4, atol=1e-4)
