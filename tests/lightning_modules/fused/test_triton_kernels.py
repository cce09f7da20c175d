"""Each Triton kernel gives what the same function gives on a CPU.

They run on a GPU. Without one they run in Triton's interpreter, if the package triton is installed:
TRITON_INTERPRET=1 pytest tests/lightning_modules/fused/test_triton_kernels.py
"""

import os
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_modules.fused import elementwise
from lightning_modules.net import loss

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
LIMIT = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 3e-3}

pytestmark = [] if INTERPRETED else [pytest.mark.gpu]


@pytest.fixture
def kernels() -> Any:
    return pytest.importorskip("lightning_modules.fused.triton_kernels")


def numbers(*shape: int, seed: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def assert_same(ours: Tensor, theirs: Tensor) -> None:
    limit = LIMIT[ours.dtype]
    torch.testing.assert_close(ours.cpu().float(), theirs.float(), rtol=limit, atol=limit)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("width", [48, 300])  # a width that is no power of 2 leaves the end of a block empty
def test_the_norm_and_its_gradient(width: int, dtype: torch.dtype, kernels: Any) -> None:
    x, grad, residual = (numbers(5, width, seed=seed, dtype=dtype) for seed in range(3))
    weight = numbers(width, seed=3, dtype=dtype)
    normed, scale = elementwise.rms_norm(x, weight, 1e-6)
    there = [part.to(DEVICE) for part in (x, weight, grad, residual)]
    mine, mine_scale = kernels.rms_norm(there[0], there[1], 1e-6)
    assert_same(mine, normed)
    assert_same(mine_scale, scale)
    assert torch.equal(kernels.renorm(there[0], there[1], mine_scale), mine)
    backward = kernels.rms_norm_backward(there[2], there[0], there[1], mine_scale, there[3])
    assert_same(backward, elementwise.rms_norm_backward(grad, x, weight, scale, residual))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("tokens", [0, 3])
def test_the_gate_and_its_gradient_in_parts_of_a_wider_tensor(tokens: int, dtype: torch.dtype, kernels: Any) -> None:
    width = kernels.PIECE + 7  # one full piece and a part of one
    both, grad = numbers(tokens, 2 * width, seed=0, dtype=dtype), numbers(tokens, width, seed=1, dtype=dtype)
    gate, up = torch.split(both, width, 1)
    there = torch.split(both.to(DEVICE), width, 1)
    assert_same(kernels.swiglu(*there), elementwise.swiglu(gate, up))
    expected, mine = torch.empty_like(both), torch.empty_like(both, device=DEVICE)
    elementwise.swiglu_backward(grad.clone(), gate, up, *torch.split(expected, width, 1))
    kernels.swiglu_backward(grad.to(DEVICE), *there, *torch.split(mine, width, 1))
    assert_same(mine, expected)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("back", [False, True])
def test_the_rotation_in_place_and_into_another_tensor(back: bool, dtype: torch.dtype, kernels: Any) -> None:
    x = numbers(4, 3, 12, seed=0, dtype=dtype)
    angles = numbers(4, 6, seed=1, dtype=torch.float32).repeat(1, 2)
    cos, sin = angles.cos().to(dtype), angles.sin().to(dtype)
    expected = elementwise.rotate(x, cos, sin, back)
    there, out = x.to(DEVICE, copy=True), torch.empty_like(x, device=DEVICE)
    for target in (out, there):
        kernels.rotate(there, cos.to(DEVICE), sin.to(DEVICE), back, target)
        assert_same(target, expected)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("with_gradient", [False, True])
def test_the_cross_entropy_and_its_gradient(
    with_gradient: bool, weighted: bool, dtype: torch.dtype, kernels: Any
) -> None:
    vocabulary = kernels.VOCABULARY_PIECE + 100
    logits = 3 * numbers(4, vocabulary, seed=0, dtype=dtype)
    targets = torch.tensor([0, 17, kernels.VOCABULARY_PIECE, vocabulary - 1])  # first, last, and on a border of pieces
    weights = torch.tensor([1.0, 0.5, 0.0, 2.0]) if weighted else None
    expected, mine = logits.float(), logits.to(DEVICE, copy=True)
    losses = loss.cross_entropy_(expected, targets, weights, with_gradient)
    there = None if weights is None else weights.to(DEVICE)
    assert_same(kernels.cross_entropy_(mine, targets.to(DEVICE), there, with_gradient), losses)
    if with_gradient:
        assert_same(mine, expected)
