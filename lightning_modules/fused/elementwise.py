"""What a decoder layer does to each number or row by itself, forward and backward: norm, gate, rotation.

Written out, so that the backward pass computes again what is cheap instead of keeping it, and so that several steps
over memory are one. On CUDA each function is one Triton kernel (kernels.py); here is what they compute. Sums and
products are float32 whatever the tensors are in, rounded once at the end.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


@cache
def triton_kernels() -> Any:
    """The module of Triton kernels, or None where there is no Triton (it comes with torch for CUDA, on Linux)."""
    try:
        from lightning_modules.fused import triton_kernels
    except ImportError:
        return None
    return triton_kernels


def on_gpu(x: Tensor) -> Any:
    return triton_kernels() if x.is_cuda else None


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """(T, D) -> x / rms(x) * weight in x's dtype, and 1 / rms(x), (T, 1) float32 (arXiv 1910.07467)."""
    if fast := on_gpu(x):
        normed, scale = fast.rms_norm(x, weight, eps)
        return normed, scale
    scale = (torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32).square_() / x.shape[-1]).add_(eps)
    scale = scale.rsqrt_()
    return renorm(x, weight, scale), scale


def renorm(x: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    """What rms_norm returned first, from what it returned second."""
    if fast := on_gpu(x):
        normed: Tensor = fast.renorm(x, weight, scale)
        return normed
    return (x * scale).mul_(weight).to(x.dtype)


def rms_norm_backward(grad: Tensor, x: Tensor, weight: Tensor, scale: Tensor, residual: Tensor) -> Tensor:
    """The gradient of x, which went through the norm and around it: `residual` is what came around."""
    if fast := on_gpu(x):
        added: Tensor = fast.rms_norm_backward(grad, x, weight, scale, residual)
        return added
    straight = grad * weight.float() if grad.dtype != torch.float32 else grad * weight
    along = torch.linalg.vecdot(straight, x.float())[:, None].mul_(scale.pow(3) / x.shape[-1])
    return straight.mul_(scale).addcmul_(x.float(), along, value=-1).add_(residual).to(x.dtype)


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up (arXiv 2002.05202)."""
    if fast := on_gpu(gate):
        hidden: Tensor = fast.swiglu(gate, up)
        return hidden
    return F.silu(gate).mul_(up)


def swiglu_backward(grad: Tensor, gate: Tensor, up: Tensor, grad_gate: Tensor, grad_up: Tensor) -> None:
    """Writes the gradients of gate and up; grad is overwritten."""
    if fast := on_gpu(gate):
        fast.swiglu_backward(grad, gate, up, grad_gate, grad_up)
        return
    torch.mul(F.silu(gate), grad, out=grad_up)
    torch.ops.aten.silu_backward(grad.mul_(up), gate, grad_input=grad_gate)


def rotate(x: Tensor, cos: Tensor, sin: Tensor, back: bool = False, out: Tensor | None = None) -> Tensor:
    """Rotary position embedding (arXiv 2104.09864) into `out`, which may be x; `back` turns the other way, which is
    its gradient.

    x: (T, heads, d). cos, sin: (T, d), their two halves equal, as transformers makes them.
    """
    if out is None:
        out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    if fast := on_gpu(x):
        fast.rotate(x, cos, sin, back, out)
        return out
    half, sign = x.shape[-1] // 2, -1 if back else 1
    c, s = cos[:, None, :half], sin[:, None, :half]
    left, right = x[..., :half], x[..., half:]
    turned = (left * c).addcmul_(right, s, value=-sign)
    torch.mul(right, c, out=out[..., half:]).addcmul_(left, s, value=sign)
    out[..., :half] = turned
    return out
