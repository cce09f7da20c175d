"""A decoder layer's products with frozen weights and LoRA, as autograd functions that keep next to nothing.

transformers and peft keep for the backward pass, for each token and layer of Qwen1.5, some 42 numbers a unit of width.
Here it is 11.5: the two inputs of the norms, q, k, v and what attention made of them, gate and up. All else is either
computed again (norms, the gated product) or never needed (inputs of frozen layers). Projections of one input share one
product for their A matrices. Weights are frozen here, so they get no gradient at all.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightning_modules.elementwise import renorm, rms_norm, rms_norm_backward, rotate, swiglu, swiglu_backward


class Linear(NamedTuple):
    """A frozen linear layer, out = in W' + bias + scale (in A') B', as it is at this moment."""

    weight: Tensor  # (out, in)
    bias: Tensor | None
    a: Tensor | None  # (r, in), None where the layer has no adapter
    b: Tensor | None  # (out, r)
    scale: float

    def trained(self) -> tuple[Tensor, Tensor] | tuple[()]:
        return () if self.a is None or self.b is None else (self.a, self.b)


class Dtypes(NamedTuple):
    """What products of the base, and of adapters, are computed in."""

    base: torch.dtype
    adapter: torch.dtype

    @classmethod
    def of(cls, weight: Tensor) -> "Dtypes":
        """Under autocast its dtype; else the base's own, and adapters, which are float32, in that: as peft does."""
        device = weight.device.type
        if torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
            return cls(dtype, dtype)
        return cls(weight.dtype, torch.float32)


def project(x: Tensor, layers: Sequence[Linear], dtypes: Dtypes) -> tuple[list[Tensor], Tensor | None]:
    """x (T, in) through layers that share it: their outputs, and x A' of all adapters side by side, (T, sum of r)."""
    outputs = []
    for layer in layers:
        weight = layer.weight.to(dtypes.base)
        if layer.bias is None:
            outputs.append(x @ weight.T)
        else:
            outputs.append(torch.addmm(layer.bias.to(dtypes.base), x, weight.T))
    low = None
    adapted = [(layer, out) for layer, out in zip(layers, outputs, strict=True) if layer.a is not None]
    if adapted:
        low = x.to(dtypes.adapter) @ torch.cat([layer.a for layer, _ in adapted]).to(dtypes.adapter).T
        for (layer, out), part in zip(adapted, _parts(low, layers), strict=True):
            _add_product(out, part, layer.b.to(dtypes.adapter).T, layer.scale)
    return outputs, low


def project_backward(
    grads: Sequence[Tensor], x: Tensor | None, low: Tensor | None, layers: Sequence[Linear], dtypes: Dtypes, to_x: bool
) -> tuple[Tensor | None, list[Tensor]]:
    """The gradients of x (None unless `to_x`) and of A and B of each adapter, in the layers' order."""
    trained: list[Tensor] = []
    grad_low = a = None
    if low is not None and x is not None:
        adapted = [(layer, g) for layer, g in zip(layers, grads, strict=True) if layer.a is not None]
        grad_low = torch.empty_like(low)
        grad_b = []
        for (layer, g), part, grad_part in zip(adapted, _parts(low, layers), _parts(grad_low, layers), strict=True):
            g = g.to(dtypes.adapter)
            torch.mul(g @ layer.b.to(dtypes.adapter), layer.scale, out=grad_part)
            grad_b.append((g.T @ part).mul_(layer.scale).to(layer.b.dtype))
        a = torch.cat([layer.a for layer, _ in adapted]).to(dtypes.adapter)
        grad_a = (grad_low.T @ x.to(dtypes.adapter)).to(adapted[0][0].a.dtype)
        for piece, one in zip(grad_a.split([len(layer.a) for layer, _ in adapted]), grad_b, strict=True):
            trained += [piece, one]
    if not to_x:
        return None, trained
    first, *others = zip(grads, layers, strict=True)
    grad_x = first[0] @ first[1].weight.to(dtypes.base)
    for g, layer in others:
        grad_x.addmm_(g, layer.weight.to(dtypes.base))
    if grad_low is not None:
        _add_product(grad_x, grad_low, a, 1.0)
    return grad_x, trained


def _parts(low: Tensor, layers: Sequence[Linear]) -> tuple[Tensor, ...]:
    return torch.split(low, [len(layer.a) for layer in layers if layer.a is not None], dim=1)


def _add_product(out: Tensor, left: Tensor, right: Tensor, scale: float) -> None:
    if out.dtype == left.dtype:
        out.addmm_(left, right, alpha=scale)
    else:
        out.add_(left @ right, alpha=scale)


class QueryKeyValue(torch.autograd.Function):
    """x (T, D) -> norm -> q, k, v -> q and k turned to their positions, each (T, heads, d); and x, to go around: so the
    gradients of both ways are added in the backward pass of the norm. Keeps x."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, norm: Tensor, eps: float, cos: Tensor, sin: Tensor, layers: Sequence[Linear], *_: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.dtypes, ctx.layers, ctx.norm = Dtypes.of(layers[0].weight), layers, norm
        normed, scale = rms_norm(x, norm, eps)
        outputs, low = project(normed.to(ctx.dtypes.base), layers, ctx.dtypes)
        ctx.save_for_backward(x, scale, low, cos, sin)
        q, k, v = (out.unflatten(-1, (-1, cos.shape[-1])) for out in outputs)
        return rotate(q, cos, sin), rotate(k, cos, sin), v, x

    @staticmethod
    def backward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, residual: Tensor) -> tuple[Any, ...]:
        x, scale, low, cos, sin = ctx.saved_tensors
        grads = [part.flatten(1) for part in (rotate(q, cos, sin, back=True), rotate(k, cos, sin, back=True), v)]
        normed = renorm(x, ctx.norm, scale).to(ctx.dtypes.base) if low is not None else None
        need = ctx.needs_input_grad[0]
        grad_normed, trained = project_backward(grads, normed, low, ctx.layers, ctx.dtypes, need)
        grad_x = None
        if grad_normed is not None:
            grad_x = rms_norm_backward(grad_normed, x, ctx.norm, scale, residual)
        return grad_x, None, None, None, None, None, *trained


class Output(torch.autograd.Function):
    """x (T, D), attended (T, heads d) -> x + o(attended). Keeps attended, which attention keeps anyway."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, attended: Tensor, layer: Linear, *_: Tensor) -> Tensor:
        ctx.dtypes, ctx.layers = Dtypes.of(layer.weight), (layer,)
        (out,), low = project(attended.to(ctx.dtypes.base), ctx.layers, ctx.dtypes)
        ctx.save_for_backward(attended if low is not None else None, low)
        return out.add_(x) if out.dtype == x.dtype else x + out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        attended, low = ctx.saved_tensors
        own = grad.to(ctx.dtypes.base)
        grad_attended, trained = project_backward([own], attended, low, ctx.layers, ctx.dtypes, True)
        return grad, grad_attended, None, *trained


class GatedMlp(torch.autograd.Function):
    """x (T, D) -> x + down(silu(gate(norm x)) * up(norm x)). Keeps x, gate and up."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, norm: Tensor, eps: float, pair: Sequence[Linear], down: Linear, *_: Tensor
    ) -> Tensor:
        ctx.dtypes, ctx.pair, ctx.down, ctx.norm = Dtypes.of(down.weight), pair, (down,), norm
        normed, scale = rms_norm(x, norm, eps)
        (gate, up), low = project(normed.to(ctx.dtypes.base), pair, ctx.dtypes)
        (out,), low_down = project(swiglu(gate, up), ctx.down, ctx.dtypes)
        ctx.save_for_backward(x, scale, gate, up, low, low_down)
        return out.add_(x) if out.dtype == x.dtype else x + out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        x, scale, gate, up, low, low_down = ctx.saved_tensors
        hidden = swiglu(gate, up) if low_down is not None else None
        own = grad.to(ctx.dtypes.base)
        grad_hidden, trained_down = project_backward([own], hidden, low_down, ctx.down, ctx.dtypes, True)
        del hidden
        both = swiglu_backward(grad_hidden, gate, up)
        del grad_hidden
        normed = renorm(x, ctx.norm, scale).to(ctx.dtypes.base) if low is not None else None
        grad_normed, trained = project_backward(both, normed, low, ctx.pair, ctx.dtypes, True)
        grad_x = rms_norm_backward(grad_normed, x, ctx.norm, scale, grad)
        return grad_x, None, None, None, None, *trained, *trained_down
