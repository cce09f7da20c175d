"""A decoder layer around its attention, as two autograd functions that keep little for the backward pass.

A layer of Qwen1.5-0.5B keeps 11.5 numbers per token and unit of width: the inputs of both norms, q, k, v, the output of
attention, gate and up. transformers and peft keep 15.3 (counted). Norms and the gated product are recomputed; inputs of
frozen weights are not needed. Fewer passes over memory save time, too.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

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
from lightning_modules.fused.lora_linear import FusedLoRALinear, LinearWeights
from lightning_modules.fused.packed_forward import ProductDtypes
from lightning_modules.internals.torch_internals import first_derivative_only


class NormWeights(NamedTuple):
    weight: Tensor
    eps: float


class LinearCall(NamedTuple):
    """A FusedLoRALinear with its weights in one forward pass."""

    linear: FusedLoRALinear
    weights: LinearWeights


class BeforeAttention(torch.autograd.Function):
    """x (T, D) -> rotated q, rotated k and v, (T, heads, d) each, and x for the residual connection.

    x is returned, too, so that the gradients of both its uses are added inside the norm's backward pass. Keeps x.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, norm: NormWeights, cos: Tensor, sin: Tensor, qkv: LinearCall, dtypes: ProductDtypes,
        *_: Tensor,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        normed, scale = rms_norm(x, norm.weight, norm.eps)
        outputs, a_out = qkv.linear.forward(normed.to(dtypes.base), qkv.weights, dtypes)
        ctx.norm, ctx.qkv, ctx.dtypes = norm, qkv, dtypes
        ctx.save_for_backward(x, scale, a_out, cos, sin)
        q, k, v = (out.view(len(x), -1, cos.shape[-1]) for out in outputs)
        return rotate(q, cos, sin, out=q), rotate(k, cos, sin, out=k), v, x

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, residual: Tensor) -> tuple[Any, ...]:
        x, scale, a_out, cos, sin = ctx.saved_tensors
        grads = ctx.qkv.linear.like_outputs(q, ctx.qkv.weights)
        views = [grad.view(given.shape) for grad, given in zip(grads, (q, k, v), strict=True)]
        rotate(q, cos, sin, back=True, out=views[0])
        rotate(k, cos, sin, back=True, out=views[1])
        views[2].copy_(v)
        x = widened(x)
        normed = renorm(x, ctx.norm.weight, scale, ctx.dtypes.base) if a_out is not None else None
        grad_normed, trained = ctx.qkv.linear.backward(
            grads, normed, a_out, ctx.qkv.weights, ctx.dtypes, to_x=ctx.needs_input_grad[0]
        )
        grad_x = None
        if grad_normed is not None:
            grad_x = rms_norm_backward(grad_normed, x, ctx.norm.weight, scale, residual)
        return grad_x, None, None, None, None, None, *trained


class AfterAttention(torch.autograd.Function):
    """x and the output of attention, (T, D) each -> y + down(silu(gate(norm y)) up(norm y)) with y = x + o(attended).

    Keeps attended, which attention keeps anyway, y, gate and up.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, attended: Tensor, norm: NormWeights, o: LinearCall, gate_up: LinearCall, down: LinearCall,
        dtypes: ProductDtypes, *_: Tensor,
    ) -> Tensor:  # fmt: skip
        attended = attended.to(dtypes.base)
        (y,), o_a_out = o.linear.forward(attended, o.weights, dtypes)
        y = _plus(y, x)
        normed, scale = rms_norm(y, norm.weight, norm.eps)
        (gate, up), a_out = gate_up.linear.forward(normed.to(dtypes.base), gate_up.weights, dtypes)
        (out,), down_a_out = down.linear.forward(swiglu(gate, up), down.weights, dtypes)
        ctx.norm, ctx.o, ctx.gate_up, ctx.down, ctx.dtypes = norm, o, gate_up, down, dtypes
        ctx.save_for_backward(None if o_a_out is None else attended, y, scale, gate, up, o_a_out, a_out, down_a_out)
        return _plus(out, y)

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        attended, y, scale, gate, up, o_a_out, a_out, down_a_out = ctx.saved_tensors
        dtypes, own = ctx.dtypes, grad.to(ctx.dtypes.base)
        hidden, activated = (None, None) if down_a_out is None else swiglu_again(gate, up)
        grad_hidden, down = ctx.down.linear.backward([own], hidden, down_a_out, ctx.down.weights, dtypes)
        del hidden
        both = ctx.gate_up.linear.like_outputs(own, ctx.gate_up.weights)
        swiglu_backward(grad_hidden, gate, up, both[0], both[1], activated)
        del grad_hidden, activated
        y = widened(y)
        normed = None if a_out is None else renorm(y, ctx.norm.weight, scale, dtypes.base)
        grad_normed, gate_up = ctx.gate_up.linear.backward(both, normed, a_out, ctx.gate_up.weights, dtypes)
        del both, normed
        grad_y = rms_norm_backward(grad_normed, y, ctx.norm.weight, scale, grad)
        grad_attended, o = ctx.o.linear.backward([grad_y.to(dtypes.base)], attended, o_a_out, ctx.o.weights, dtypes)
        return grad_y, grad_attended, None, None, None, None, None, *o, *gate_up, *down


def _plus(out: Tensor, x: Tensor) -> Tensor:
    """Return their sum in x's dtype. May overwrite `out`."""
    return out.add_(x) if out.dtype == x.dtype else x + out
