"""Triton kernels for what elementwise.py and loss.py compute, one pass over memory each. For CUDA.

Rows are read whole where they fit a block, in float32 whatever the tensors are in. Sources: RMSNorm and its gradient
(arXiv 1910.07467), SwiGLU (arXiv 2002.05202), rotation (arXiv 2104.09864), softmax in one pass (arXiv 1805.02867).
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

PIECE = 1024  # numbers a program takes of a tensor that is worked on number by number
VOCABULARY_PIECE = 8192  # logits a program holds at once


@triton.jit
def _rms_norm(x, weight, out, scale, width, eps, known: tl.constexpr, block: tl.constexpr):
    row, at = tl.program_id(0).to(tl.int64), tl.arange(0, block)
    inside = at < width
    value = tl.load(x + row * width + at, mask=inside, other=0.0).to(tl.float32)
    if known:
        s = tl.load(scale + row)
    else:
        s = tl.rsqrt(tl.sum(value * value, 0) / width + eps)
        tl.store(scale + row, s)
    factor = tl.load(weight + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row * width + at, value * s * factor, mask=inside)


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
    row, at = tl.program_id(0).to(tl.int64), tl.arange(0, block)
    inside = at < width
    here = row * width + at
    value = tl.load(x + here, mask=inside, other=0.0).to(tl.float32)
    straight = tl.load(grad + here, mask=inside, other=0.0).to(tl.float32)
    straight *= tl.load(weight + at, mask=inside, other=0.0).to(tl.float32)
    around = tl.load(residual + here, mask=inside, other=0.0).to(tl.float32)
    s = tl.load(scale + row)
    along = tl.sum(straight * value, 0) * s * s * s / width
    tl.store(out + here, straight * s - value * along + around, mask=inside)


def rms_norm_backward(grad: Tensor, x: Tensor, weight: Tensor, scale: Tensor, residual: Tensor) -> Tensor:
    grad, x, residual, width = grad.contiguous(), x.contiguous(), residual.contiguous(), x.shape[-1]
    out = torch.empty_like(x)
    block = triton.next_power_of_2(width)
    _rms_norm_backward[(len(x),)](
        grad, x, weight, scale, residual, out, width, block, num_warps=_warps(block)
    )  # fmt: skip
    return out


@triton.jit
def _swiglu(gate, up, out, width, gate_row, up_row, piece: tl.constexpr):
    row, at = tl.program_id(0).to(tl.int64), tl.program_id(1) * piece + tl.arange(0, piece)
    inside = at < width
    g = tl.load(gate + row * gate_row + at, mask=inside, other=0.0).to(tl.float32)
    u = tl.load(up + row * up_row + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row * width + at, g * tl.sigmoid(g) * u, mask=inside)


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    rows, width = gate.shape
    out = torch.empty(rows, width, dtype=gate.dtype, device=gate.device)
    if rows:
        _swiglu[(rows, triton.cdiv(width, PIECE))](gate, up, out, width, gate.stride(0), up.stride(0), PIECE)
    return out


@triton.jit
def _swiglu_backward(
    grad, gate, up, grad_gate, grad_up, width, grad_row, gate_row, up_row, to_gate_row, to_up_row, piece: tl.constexpr
):
    row, at = tl.program_id(0).to(tl.int64), tl.program_id(1) * piece + tl.arange(0, piece)
    inside = at < width
    d = tl.load(grad + row * grad_row + at, mask=inside, other=0.0).to(tl.float32)
    g = tl.load(gate + row * gate_row + at, mask=inside, other=0.0).to(tl.float32)
    u = tl.load(up + row * up_row + at, mask=inside, other=0.0).to(tl.float32)
    s = tl.sigmoid(g)
    tl.store(grad_up + row * to_up_row + at, d * g * s, mask=inside)
    tl.store(grad_gate + row * to_gate_row + at, d * u * s * (1 + g * (1 - s)), mask=inside)


def swiglu_backward(grad: Tensor, gate: Tensor, up: Tensor, grad_gate: Tensor, grad_up: Tensor) -> None:
    rows, width = gate.shape
    strides = [one.stride(0) for one in (grad, gate, up, grad_gate, grad_up)]
    if rows:
        grid = (rows, triton.cdiv(width, PIECE))
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
    logits, targets, weights, losses, minimized, vocabulary, row_stride, smoothing, z_loss, weighted: tl.constexpr,
    slope: tl.constexpr, piece: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    logits += row * row_stride
    target = tl.load(targets + row)
    highest, summed, plain_sum = float("-inf"), 0.0, 0.0
    for start in range(0, vocabulary, piece):
        at = start + tl.arange(0, piece)
        inside = at < vocabulary
        x = tl.load(logits + at, mask=inside, other=float("-inf")).to(tl.float32)
        higher = tl.maximum(highest, tl.max(x, 0))
        summed = summed * tl.exp(highest - higher) + tl.sum(tl.exp(x - higher), 0)
        plain_sum += tl.sum(tl.where(inside, x, 0.0), 0)
        highest = higher
    normalizer = highest + tl.log(summed)
    loss = normalizer - tl.load(logits + target).to(tl.float32)
    even = normalizer - plain_sum / vocabulary
    weight = 1.0
    if weighted:
        weight = tl.load(weights + row)
    tl.store(losses + row, loss)
    aim = (1 - smoothing) * loss + smoothing * even + z_loss * normalizer * normalizer
    tl.store(minimized + row, weight * aim)
    if slope:
        tl.debug_barrier()  # the target's logit is read before it is overwritten
        steeper = 1 + 2 * z_loss * normalizer
        for start in range(0, vocabulary, piece):
            at = start + tl.arange(0, piece)
            inside = at < vocabulary
            x = tl.load(logits + at, mask=inside, other=float("-inf")).to(tl.float32)
            down = steeper * tl.exp(x - normalizer) - smoothing / vocabulary
            down = tl.where(at == target, down - (1 - smoothing), down)
            tl.store(logits + at, weight * down, mask=inside)


def cross_entropy_(
    logits: Tensor, targets: Tensor, weights: Tensor | None, smoothing: float, z_loss: float, slope: bool
) -> tuple[Tensor, Tensor]:
    """See loss.cross_entropy_."""
    losses = torch.empty(len(logits), dtype=torch.float32, device=logits.device)
    minimized = torch.empty_like(losses)
    if len(logits):
        _cross_entropy[(len(logits),)](
            logits, targets, losses if weights is None else weights, losses, minimized, logits.shape[1],
            logits.stride(0), smoothing, z_loss, weights is not None, slope, VOCABULARY_PIECE, num_warps=16,
        )  # fmt: skip
    return losses, minimized


def _warps(block: int) -> int:
    return min(16, max(4, block // 256))
