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
def kernels() -> Any:
    """The module of Triton kernels, or None where there is no Triton (it comes with torch for CUDA, on Linux)."""
    try:
        from lightning_modules import kernels
    except ImportError:
        return None
    return kernels


def on_gpu(x: Tensor) -> Any:
    return kernels() if x.is_cuda else None


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


def swiglu_backward(grad: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of gate and up; grad is overwritten."""
    if fast := on_gpu(gate):
        grads: tuple[Tensor, Tensor] = fast.swiglu_backward(grad, gate, up)
        return grads
    grad_up = F.silu(gate).mul_(grad)
    return torch.ops.aten.silu_backward(grad.mul_(up), gate), grad_up


def rotate(x: Tensor, cos: Tensor, sin: Tensor, back: bool = False) -> Tensor:
    """Rotary position embedding (arXiv 2104.09864); `back` turns the other way, which is its gradient.

    x: (T, heads, d). cos, sin: (T, d), their two halves equal, as transformers makes them.
    """
    if fast := on_gpu(x):
        turned: Tensor = fast.rotate(x, cos, sin, back)
        return turned
    half = x.shape[-1] // 2
    c, s = cos[:, None, :half], sin[:, None, :half]
    left, right = x[..., :half], x[..., half:]
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    sign = -1 if back else 1
    torch.mul(left, c, out=out[..., :half]).addcmul_(right, s, value=-sign)
    torch.mul(right, c, out=out[..., half:]).addcmul_(left, s, value=sign)
    return out
