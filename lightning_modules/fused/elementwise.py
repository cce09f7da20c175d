"""Elementwise parts of a decoder layer, forward and backward: RMSNorm, SwiGLU, rotary embedding.

They are written out for two reasons: the backward pass recomputes cheap values instead of keeping them, and several
passes over memory become one. On CUDA each function is one Triton kernel (triton_kernels.py). Sums and products are
float32, whatever the dtype of the tensors, and are rounded once at the end.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_modules.internals.torch_internals import silu_backward_


@cache
def triton_kernels() -> Any:
    """Return the module of Triton kernels; None without Triton, which comes with torch for CUDA on Linux."""
    try:
        from lightning_modules.fused import triton_kernels
    except ImportError:
        return None
    return triton_kernels


def kernels_for(x: Tensor) -> Any:
    """Return the module of Triton kernels for a tensor on a GPU, else None."""
    return triton_kernels() if x.is_cuda else None


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Return x / rms(x) * weight, (T, D) in x's dtype, and 1 / rms(x), (T, 1) float32 (arXiv 1910.07467)."""
    if fast := kernels_for(x):
        normed, scale = fast.rms_norm(x, weight, eps)
        return normed, scale
    scale = (torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32).square_() / x.shape[-1]).add_(eps)
    scale = scale.rsqrt_()
    return renorm(x, weight, scale), scale


def renorm(x: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    """Return the first result of rms_norm, given its second, `scale`."""
    if fast := kernels_for(x):
        normed: Tensor = fast.renorm(x, weight, scale)
        return normed
    return (x * scale).mul_(weight).to(x.dtype)


def rms_norm_backward(grad: Tensor, x: Tensor, weight: Tensor, scale: Tensor, residual: Tensor) -> Tensor:
    """Return the gradient of x, which went into the norm and into the residual connection.

    grad: of the norm's output; residual: of the residual connection.
    """
    if fast := kernels_for(x):
        added: Tensor = fast.rms_norm_backward(grad, x, weight, scale, residual)
        return added
    direct = grad * weight.float() if grad.dtype != torch.float32 else grad * weight
    along = torch.linalg.vecdot(direct, x.float())[:, None].mul_(scale.pow(3) / x.shape[-1])
    return direct.mul_(scale).addcmul_(x.float(), along, value=-1).add_(residual).to(x.dtype)


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """Return silu(gate) * up (arXiv 2002.05202)."""
    if fast := kernels_for(gate):
        hidden: Tensor = fast.swiglu(gate, up)
        return hidden
    return F.silu(gate).mul_(up)


def swiglu_backward(grad: Tensor, gate: Tensor, up: Tensor, grad_gate: Tensor, grad_up: Tensor) -> None:
    """Write the gradients of gate and up into grad_gate and grad_up. Overwrites grad."""
    if fast := kernels_for(gate):
        fast.swiglu_backward(grad, gate, up, grad_gate, grad_up)
        return
    torch.mul(F.silu(gate), grad, out=grad_up)
    silu_backward_(grad.mul_(up), gate, out=grad_gate)


def rotate(x: Tensor, cos: Tensor, sin: Tensor, back: bool = False, out: Tensor | None = None) -> Tensor:
    """Write the rotary position embedding (arXiv 2104.09864) of x into `out`, which may be x, and return it.

    x: (T, heads, d). cos, sin: (T, d), their two halves equal, as in transformers. `back` rotates the other way, which
    is the gradient.
    """
    if out is None:
        out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    if fast := kernels_for(x):
        fast.rotate(x, cos, sin, back, out)
        return out
    half, sign = x.shape[-1] // 2, -1 if back else 1
    c, s = cos[:, None, :half], sin[:, None, :half]
    left, right = x[..., :half], x[..., half:]
    rotated = (left * c).addcmul_(right, s, value=-sign)
    torch.mul(right, c, out=out[..., half:]).addcmul_(left, s, value=sign)
    out[..., :half] = rotated
    return out
