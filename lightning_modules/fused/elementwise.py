"""Elementwise parts of a decoder layer, forward and backward: RMSNorm, SwiGLU, rotary embedding.

They are written out for two reasons: the backward pass recomputes cheap values instead of keeping them, and several
passes over memory become one. On CUDA each function is one Triton kernel (triton_kernels.py). Sums and products are
float32, whatever the dtype of the tensors, and are rounded once at the end. On a CPU in half precision a tensor is
converted once: torch converts an operand again in each operation that mixes dtypes.
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
    wide = x.float()
    scale = (torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_() / x.shape[-1]).add_(eps).rsqrt_()
    return renorm(wide, weight, scale, x.dtype), scale


def widened(x: Tensor) -> Tensor:
    """Return x for `renorm` and `rms_norm_backward`: on a CPU in float32, so that both use one conversion."""
    return x if kernels_for(x) else x.float()


def renorm(x: Tensor, weight: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the first result of rms_norm in a dtype, given its second, `scale`. x may be widened."""
    if fast := kernels_for(x):
        normed: Tensor = fast.renorm(x, weight, scale)
        return normed.to(dtype)
    return (x * scale).mul_(weight).to(dtype)


def rms_norm_backward(grad: Tensor, x: Tensor, weight: Tensor, scale: Tensor, residual: Tensor) -> Tensor:
    """Return the gradient of x, which went into the norm and into the residual connection, in residual's dtype.

    grad: of the norm's output; residual: of the residual connection. x may be widened.
    """
    if fast := kernels_for(x):
        added: Tensor = fast.rms_norm_backward(grad, x, weight, scale, residual)
        return added
    x = x.float()
    direct = grad * weight if grad.dtype == torch.float32 else grad.float().mul_(weight)
    along = torch.linalg.vecdot(direct, x)[:, None].mul_(scale.pow(3) / x.shape[-1])
    return direct.mul_(scale).addcmul_(x, along, value=-1).add_(residual).to(residual.dtype)


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """Return silu(gate) * up (arXiv 2002.05202)."""
    if fast := kernels_for(gate):
        hidden: Tensor = fast.swiglu(gate, up)
        return hidden
    return F.silu(gate).mul_(up)


def swiglu_again(gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return the result of swiglu, and silu(gate) for `swiglu_backward`; None where its kernel computes that anew."""
    if kernels_for(gate):
        return swiglu(gate, up), None
    activated = F.silu(gate)
    return activated * up, activated


def swiglu_backward(
    grad: Tensor, gate: Tensor, up: Tensor, grad_gate: Tensor, grad_up: Tensor, activated: Tensor | None = None
) -> None:
    """Write the gradients of gate and up into grad_gate and grad_up. Overwrites grad.

    activated: silu(gate), if it is known
    """
    if fast := kernels_for(gate):
        fast.swiglu_backward(grad, gate, up, grad_gate, grad_up)
        return
    torch.mul(F.silu(gate) if activated is None else activated, grad, out=grad_up)
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
    half = x.shape[-1] // 2
    left, right = sin[:, None, :half], sin[:, None, half:]
    signed = torch.cat([left, -right] if back else [-left, right], dim=-1).float()
    wide = x.float()  # whole heads at once: operations on halves of a head take longer
    return out.copy_((wide * cos[:, None]).addcmul_(wide.roll(half, -1), signed))
