"""Linear layers with frozen weights that share an input, and their LoRA: out_i = x W_i' + bias_i + s_i (x A_i') B_i'.

One product serves all A matrices and, on a GPU, one all frozen weights. Inputs are not kept for frozen weights, which
get no gradient at all. peft's modules stay where they are and hold the weights; this reads them at each forward pass,
so that sharded ones are whole.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Dtypes(NamedTuple):
    """What products with frozen weights, and those of adapters, are computed in."""

    base: torch.dtype
    adapter: torch.dtype

    @classmethod
    def now(cls, weight: Tensor) -> "Dtypes":
        """Under autocast its dtype; else the base's own, and that of adapters, float32, for adapters: as peft does."""
        device = weight.device.type
        if torch.is_autocast_enabled(device):
            return cls(torch.get_autocast_dtype(device), torch.get_autocast_dtype(device))
        return cls(weight.dtype, torch.float32)


class Weights(NamedTuple):
    """The layers of a group as they are in one forward pass, in the dtypes of their products."""

    frozen: list[Tensor]  # (out_i, in) each; or one, all of them on top of each other
    biases: list[Tensor | None]
    a: Tensor | None  # (sum of ranks, in), each multiplied by its scale
    bs: list[Tensor | None]  # (out_i, rank_i), None where a layer has no adapter

    @property
    def fused(self) -> bool:
        """Whether the frozen ones are one matrix."""
        return len(self.frozen) < len(self.bs)


class FusedLoRALinear:
    """Linear layers, plain or with peft's LoRA, that are given the same input."""

    def __init__(self, modules: Sequence[Any]) -> None:
        self.bases = [getattr(module, "base_layer", module) for module in modules]
        self.widths = [base.out_features for base in self.bases]
        self.adapters = [
            (module.lora_A["default"], module.lora_B["default"], float(module.scaling["default"]))
            if base is not module
            else None
            for module, base in zip(modules, self.bases, strict=True)
        ]
        self.ranks = [one[0].out_features if one else 0 for one in self.adapters]
        self.scales = [one[2] for one in self.adapters if one]
        self.fused: Tensor | None = None
        self.fused_bias: Tensor | None = None
        self.a: Tensor | None = None
        self.bs: list[Tensor | None] = []
        self.copies: list[Tensor] = []  # A and B of each adapter, parts of those

    def trained(self) -> list[Tensor]:
        """A and B of each adapter."""
        return [part.weight for one in self.adapters if one for part in one[:2]]

    def weights(self, dtypes: Dtypes, may_fuse: bool) -> Weights:
        """As they are now. With `may_fuse` the frozen ones become parts of one matrix, in the same memory."""
        frozen, biases = [base.weight for base in self.bases], [base.bias for base in self.bases]
        if may_fuse and len(frozen) > 1 and frozen[0].dtype == dtypes.base:
            frozen, biases = self._fuse(frozen, biases)
        elif frozen[0].dtype != dtypes.base:
            frozen = [weight.to(dtypes.base) for weight in frozen]
        biases = [None if bias is None else bias.to(dtypes.base) for bias in biases]
        if not self.scales:
            return Weights(frozen, biases, None, [None] * len(self.bases))
        if self.a is None or self.a.device != frozen[0].device or self.a.dtype != dtypes.adapter:
            self._make_room(frozen[0], dtypes.adapter)
        assert self.a is not None
        with torch.no_grad():
            torch._foreach_copy_(self.copies, self.trained())
            torch._foreach_mul_(self.copies[::2], self.scales)
        return Weights(frozen, biases, self.a, self.bs)

    def _make_room(self, frozen: Tensor, dtype: torch.dtype) -> None:
        """For copies of the adapters in the dtype that they are used in."""
        with torch.inference_mode(False):  # the first pass may be a validation's; those that follow write there, too
            self.a = torch.empty(sum(self.ranks), frozen.shape[1], dtype=dtype, device=frozen.device)
            shapes = zip(self.widths, self.ranks, strict=True)
            self.bs = [self.a.new_empty(width, rank) if rank else None for width, rank in shapes]
            parts = zip(torch.split(self.a, self.ranks), self.bs, strict=True)
            self.copies = [copy for a, b in parts if b is not None for copy in (a, b)]

    def _fuse(self, frozen: list[Tensor], biases: list[Tensor | None]) -> tuple[list[Tensor], list[Tensor | None]]:
        if self.fused is None or self.fused.data_ptr() != frozen[0].data_ptr():  # new, or moved to another device
            with torch.inference_mode(False), torch.no_grad():
                self.fused = torch.cat([weight.detach() for weight in frozen])
                for weight, part in zip(frozen, torch.split(self.fused, self.widths), strict=True):
                    weight.data = part
                self.fused_bias = None
                if biases[0] is not None:
                    self.fused_bias = torch.cat([bias.detach() for bias in biases if bias is not None])
        return [self.fused], [self.fused_bias]

    def like_outputs(self, x: Tensor, weights: Weights) -> list[Tensor]:
        """Uninitialized tensors of the outputs' shapes; where weights are fused parts of one."""
        if weights.fused:
            return list(torch.split(x.new_empty(len(x), sum(self.widths)), self.widths, dim=1))
        return [x.new_empty(len(x), width) for width in self.widths]

    def forward(self, x: Tensor, weights: Weights, dtypes: Dtypes) -> tuple[list[Tensor], Tensor | None]:
        """x (T, in) -> the outputs, (T, out_i) each, and what all A matrices made of x, (T, sum of ranks)."""
        outputs = [
            x @ weight.T if bias is None else torch.addmm(bias, x, weight.T)
            for weight, bias in zip(weights.frozen, weights.biases, strict=True)
        ]
        if weights.fused:
            outputs = list(torch.split(outputs[0], self.widths, dim=1))
        if weights.a is None:
            return outputs, None
        low = x.to(dtypes.adapter) @ weights.a.T
        for out, part, b in zip(outputs, torch.split(low, self.ranks, dim=1), weights.bs, strict=True):
            if b is not None:
                _add_product(out, part, b.T)
        return outputs, low

    def backward(
        self,
        grads: list[Tensor],
        x: Tensor | None,
        low: Tensor | None,
        weights: Weights,
        dtypes: Dtypes,
        to_x: bool = True,
    ) -> tuple[Tensor | None, list[Tensor]]:
        """From the outputs' gradients, from x (None where there is no adapter) and from what forward returned beside
        them: the gradient of x (None unless `to_x`), and those of A and B of each adapter. With fused weights `grads`
        are parts of one tensor, as like_outputs made them."""
        trained: list[Tensor] = []
        grad_low = None
        if low is not None and x is not None:
            grad_low = torch.empty_like(low)
            grad_bs = []
            parts = zip(torch.split(low, self.ranks, dim=1), torch.split(grad_low, self.ranks, dim=1), strict=True)
            for grad, (part, grad_part), b in zip(grads, parts, weights.bs, strict=True):
                if b is not None:
                    own = grad.to(dtypes.adapter)
                    torch.mm(own, b, out=grad_part)
                    grad_bs.append((own.T @ part).float())
            grad_a = (grad_low.T @ x.to(dtypes.adapter)).float()
            for piece, scale, grad_b in zip(
                torch.split(grad_a, [rank for rank in self.ranks if rank]), self.scales, grad_bs, strict=True
            ):
                trained += [piece.mul_(scale), grad_b]
        if not to_x:
            return None, trained
        if weights.fused:
            assert grads[0]._base is not None
            grads = [grads[0]._base]
        grad_x = grads[0] @ weights.frozen[0]
        for grad, weight in zip(grads[1:], weights.frozen[1:], strict=True):
            grad_x.addmm_(grad, weight)
        if grad_low is not None and weights.a is not None:
            _add_product(grad_x, grad_low, weights.a)
        return grad_x, trained


def _add_product(out: Tensor, left: Tensor, right: Tensor) -> None:
    if out.dtype == left.dtype:
        out.addmm_(left, right)
    else:
        out.add_(left @ right)
