"""Triton kernels for CUDA that compute what elementwise.py and net/loss.py compute, each in one pass over memory.

Values are read as float32, whatever the dtype of the tensors. Sources: RMSNorm and its gradient
(arXiv 1910.07467), SwiGLU (arXiv 2002.05202), rotation (arXiv 2104.09864), softmax in one pass (arXiv 1805.02867).
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

PIECE = 1024  # numbers of one program, in kernels that treat each number by itself
VOCABULARY_PIECE = 8192  # logits that one program holds at a time


@triton.jit
def _rms_norm(x, weight, out, scale, width, eps, known: tl.constexpr, block: tl.constexpr):
    token, at = tl.program_id(0).to(tl.int64), tl.arange(0, block)
    inside = at < width
    value = tl.load(x + token * width + at, mask=inside, other=0.0).to(tl.float32)
    if known:
        s = tl.load(scale + token)
    else:
        s = tl.rsqrt(tl.sum(value * value, 0) / width + eps)
        tl.store(scale + token, s)
    factor = tl.load(weight + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + token * width + at, value * s * factor, mask=inside)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    scale = torch.empty(len(x), 1, dtype=torch.float32, device=x.device)
    return _norm(x, weight, scale, eps, False), scale


def renorm(x: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    return _norm(x, weight, scale, 0.0, True)


def _norm(x: Tensor, weight: Tensor, scale: Tensor, eps: float, known: bool) -> Tensor:
    x, width = x.contiguous(), x.shape[-1]
    out = torch.empty_like(x)
    block = triton.next_power_of_2(width)
    _rms_norm[(len(x),)](x, weight, out, scale, width, eps, known, block, num_warps=_warps(block))
    return out


@triton.jit
def _rms_norm_backward(grad, x, weight, scale, residual, out, width, block: tl.constexpr):
    token, at = tl.program_id(0).to(tl.int64), tl.arange(0, block)
    inside = at < width
    here = token * width + at
    value = tl.load(x + here, mask=inside, other=0.0).to(tl.float32)
    direct = tl.load(grad + here, mask=inside, other=0.0).to(tl.float32)
    direct *= tl.load(weight + at, mask=inside, other=0.0).to(tl.float32)
    beside = tl.load(residual + here, mask=inside, other=0.0).to(tl.float32)
    s = tl.load(scale + token)
    along = tl.sum(direct * value, 0) * s * s * s / width
    tl.store(out + here, direct * s - value * along + beside, mask=inside)


def rms_norm_backward(grad: Tensor, x: Tensor, weight: Tensor, scale: Tensor, residual: Tensor) -> Tensor:
    grad, x, residual, width = grad.contiguous(), x.contiguous(), residual.contiguous(), x.shape[-1]
    out = torch.empty_like(x)
    block = triton.next_power_of_2(width)
    _rms_norm_backward[(len(x),)](
        grad, x, weight, scale, residual, out, width, block, num_warps=_warps(block)
    )  # fmt: skip
    return out


@triton.jit
def _swiglu(gate, up, out, width, gate_token, up_token, piece: tl.constexpr):
    token, at = tl.program_id(0).to(tl.int64), tl.program_id(1) * piece + tl.arange(0, piece)
    inside = at < width
    g = tl.load(gate + token * gate_token + at, mask=inside, other=0.0).to(tl.float32)
    u = tl.load(up + token * up_token + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + token * width + at, g * tl.sigmoid(g) * u, mask=inside)


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    tokens, width = gate.shape
    out = torch.empty(tokens, width, dtype=gate.dtype, device=gate.device)
    if tokens:
        _swiglu[(tokens, triton.cdiv(width, PIECE))](gate, up, out, width, gate.stride(0), up.stride(0), PIECE)
    return out


@triton.jit
def _swiglu_backward(
    grad, gate, up, grad_gate, grad_up, width, grad_token, gate_token, up_token, to_gate_token, to_up_token,
    piece: tl.constexpr,
):  # fmt: skip
    token, at = tl.program_id(0).to(tl.int64), tl.program_id(1) * piece + tl.arange(0, piece)
    inside = at < width
    d = tl.load(grad + token * grad_token + at, mask=inside, other=0.0).to(tl.float32)
    g = tl.load(gate + token * gate_token + at, mask=inside, other=0.0).to(tl.float32)
    u = tl.load(up + token * up_token + at, mask=inside, other=0.0).to(tl.float32)
    s = tl.sigmoid(g)
    tl.store(grad_up + token * to_up_token + at, d * g * s, mask=inside)
    tl.store(grad_gate + token * to_gate_token + at, d * u * s * (1 + g * (1 - s)), mask=inside)


def swiglu_backward(grad: Tensor, gate: Tensor, up: Tensor, grad_gate: Tensor, grad_up: Tensor) -> None:
    tokens, width = gate.shape
    strides = [one.stride(0) for one in (grad, gate, up, grad_gate, grad_up)]
    if tokens:
        grid = (tokens, triton.cdiv(width, PIECE))
        _swiglu_backward[grid](grad, gate, up, grad_gate, grad_up, width, *strides, PIECE)


@triton.jit
def _rotate(
    x, cos, sin, out, heads, x_token, x_head, cos_token, out_token, out_head, sign, half: tl.constexpr,
    heads_block: tl.constexpr, half_block: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    head, at = tl.arange(0, heads_block)[:, None], tl.arange(0, half_block)[None, :]
    inside = (head < heads) & (at < half)
    c = tl.load(cos + token * cos_token + at, mask=at < half, other=0.0).to(tl.float32)
    s = tl.load(sin + token * cos_token + at, mask=at < half, other=0.0).to(tl.float32) * sign
    here = x + token * x_token + head * x_head + at
    left = tl.load(here, mask=inside, other=0.0).to(tl.float32)
    right = tl.load(here + half, mask=inside, other=0.0).to(tl.float32)
    there = out + token * out_token + head * out_head + at
    tl.store(there, left * c - right * s, mask=inside)
    tl.store(there + half, right * c + left * s, mask=inside)


def rotate(x: Tensor, cos: Tensor, sin: Tensor, back: bool, out: Tensor) -> None:
    if x.stride(-1) != 1:
        x = x.contiguous()
    tokens, heads, d = x.shape
    blocks = triton.next_power_of_2(heads), triton.next_power_of_2(d // 2)
    strides = x.stride(0), x.stride(1), cos.stride(0), out.stride(0), out.stride(1)
    _rotate[(tokens,)](x, cos, sin, out, heads, *strides, -1.0 if back else 1.0, d // 2, *blocks)


@triton.jit
def _cross_entropy(
    logits, targets, weights, losses, vocabulary, stride, weighted: tl.constexpr, with_gradient: tl.constexpr,
    piece: tl.constexpr,
):  # fmt: skip
    position = tl.program_id(0).to(tl.int64)
    logits += position * stride
    target = tl.load(targets + position)
    highest, summed = float("-inf"), 0.0
    for start in range(0, vocabulary, piece):
        at = start + tl.arange(0, piece)
        inside = at < vocabulary
        x = tl.load(logits + at, mask=inside, other=float("-inf")).to(tl.float32)
        higher = tl.maximum(highest, tl.max(x, 0))
        summed = summed * tl.exp(highest - higher) + tl.sum(tl.exp(x - higher), 0)
        highest = higher
    normalizer = highest + tl.log(summed)
    tl.store(losses + position, normalizer - tl.load(logits + target).to(tl.float32))
    if with_gradient:
        weight = 1.0
        if weighted:
            weight = tl.load(weights + position)
        tl.debug_barrier()  # the target's logit is read before it is overwritten
        for start in range(0, vocabulary, piece):
            at = start + tl.arange(0, piece)
            inside = at < vocabulary
            x = tl.load(logits + at, mask=inside, other=float("-inf")).to(tl.float32)
            slope = tl.exp(x - normalizer)
            slope = tl.where(at == target, slope - 1.0, slope)
            tl.store(logits + at, weight * slope, mask=inside)


def cross_entropy_(logits: Tensor, targets: Tensor, weights: Tensor | None, with_gradient: bool) -> Tensor:
    """See cross_entropy_ in net/loss.py."""
    losses = torch.empty(len(logits), dtype=torch.float32, device=logits.device)
    if len(logits):
        _cross_entropy[(len(logits),)](
            logits, targets, losses if weights is None else weights, losses, logits.shape[1], logits.stride(0),
            weights is not None, with_gradient, VOCABULARY_PIECE, num_warps=16,
        )  # fmt: skip
    return losses


def _warps(block: int) -> int:
    return min(16, max(4, block // 256))
