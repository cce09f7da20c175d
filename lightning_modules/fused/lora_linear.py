"""Linear layers with frozen weights that share an input, and their LoRA: out_i = x W_i' + bias_i + s_i (x A_i') B_i'.

One product serves all A matrices. On a GPU one product also serves all frozen weights. Inputs are kept for adapters
only, because frozen weights get no gradient. peft's modules stay in place and hold the weights; they are read at each
forward pass, when sharded weights are whole.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightning_modules.fused.packed_forward import ProductDtypes
from lightning_modules.internals.peft_internals import base_layer, lora_parts
from lightning_modules.internals.torch_internals import copy_and_scale_, whole_of


class LinearWeights(NamedTuple):
    """The weights of a FusedLoRALinear in one forward pass, in the dtypes of their products."""

    frozen: list[Tensor]  # (out_i, in) each; if stacked one matrix (sum of out_i, in)
    biases: list[Tensor | None]
    a: Tensor | None  # (sum of ranks, in), each A multiplied by its scale
    bs: list[Tensor | None]  # (out_i, rank_i); None for a layer without an adapter

    @property
    def stacked(self) -> bool:
        """Whether the frozen weights are one matrix."""
        return len(self.frozen) < len(self.bs)


class FusedLoRALinear:
    """Linear layers with the same input, plain or with peft's LoRA, computed together."""

    def __init__(self, modules: Sequence[Any]) -> None:
        self.bases = [base_layer(module) for module in modules]
        self.widths = [base.out_features for base in self.bases]
        self.adapters = [lora_parts(module) for module in modules]
        self.ranks = [adapter.rank if adapter else 0 for adapter in self.adapters]
        self.scales = [adapter.scale for adapter in self.adapters if adapter]
        self.stack: Tensor | None = None
        self.stacked_bias: Tensor | None = None
        self.stacked_at: list[int] = []  # where the weights and biases are
        self.a: Tensor | None = None
        self.bs: list[Tensor | None] = []
        self.copies: list[Tensor] = []  # A and B of each adapter: views into `a`, and `bs`

    def trained(self) -> list[Tensor]:
        """Return A and B of each adapter."""
        return [part.weight for adapter in self.adapters if adapter for part in (adapter.a, adapter.b)]

    def weights(self, dtypes: ProductDtypes, may_stack: bool) -> LinearWeights:
        """Return the current weights. With `may_stack` the frozen ones become views into one matrix, without a copy."""
        frozen: list[Tensor] = [base.weight for base in self.bases]
        biases: list[Tensor | None] = [base.bias for base in self.bases]
        if may_stack and len(frozen) > 1 and frozen[0].dtype == dtypes.base:
            frozen, biases = self._stack(frozen, biases)
        elif frozen[0].dtype != dtypes.base:
            frozen = [weight.to(dtypes.base) for weight in frozen]
        biases = [None if bias is None else bias.to(dtypes.base) for bias in biases]
        if not self.scales:
            return LinearWeights(frozen, biases, None, [None] * len(self.bases))
        if self.a is None or self.a.device != frozen[0].device or self.a.dtype != dtypes.adapter:
            self._allocate_copies(frozen[0], dtypes.adapter)
        assert self.a is not None
        with torch.no_grad():
            copy_and_scale_(self.copies, self.trained(), self.scales)
        return LinearWeights(frozen, biases, self.a, self.bs)

    def _allocate_copies(self, frozen: Tensor, dtype: torch.dtype) -> None:
        with torch.inference_mode(False):  # a validation may come first, and training writes to the same tensors
            self.a = torch.empty(sum(self.ranks), frozen.shape[1], dtype=dtype, device=frozen.device)
            shapes = zip(self.widths, self.ranks, strict=True)
            self.bs = [self.a.new_empty(width, rank) if rank else None for width, rank in shapes]
            parts = zip(torch.split(self.a, self.ranks), self.bs, strict=True)
            self.copies = [copy for a, b in parts if b is not None for copy in (a, b)]

    def _stack(self, frozen: list[Tensor], biases: list[Tensor | None]) -> tuple[list[Tensor], list[Tensor | None]]:
        given = [bias for bias in biases if bias is not None]
        if self.stack is None or self.stacked_at != _places(frozen, given):  # new, moved, or replaced, as by merging
            with torch.inference_mode(False), torch.no_grad():
                self.stack = torch.cat([weight.detach() for weight in frozen])
                for weight, part in zip(frozen, torch.split(self.stack, self.widths), strict=True):
                    weight.data = part
                self.stacked_bias = torch.cat([bias.detach() for bias in given]) if given else None
                if self.stacked_bias is not None:
                    for bias, part in zip(given, torch.split(self.stacked_bias, self.widths), strict=True):
                        bias.data = part
            self.stacked_at = _places(frozen, given)
        return [self.stack], [self.stacked_bias]

    def like_outputs(self, x: Tensor, weights: LinearWeights) -> list[Tensor]:
        """Return uninitialized tensors of the outputs' shapes; with stacked weights they are views of one tensor."""
        if weights.stacked:
            return list(torch.split(x.new_empty(len(x), sum(self.widths)), self.widths, dim=1))
        return [x.new_empty(len(x), width) for width in self.widths]

    def forward(self, x: Tensor, weights: LinearWeights, dtypes: ProductDtypes) -> tuple[list[Tensor], Tensor | None]:
        """Return the outputs, (T, out_i) each, and the product of x with all A matrices, (T, sum of ranks).

        x: (T, in). The second result is None without adapters.
        """
        outputs = [
            x @ weight.T if bias is None else torch.addmm(bias, x, weight.T)
            for weight, bias in zip(weights.frozen, weights.biases, strict=True)
        ]
        if weights.stacked:
            outputs = list(torch.split(outputs[0], self.widths, dim=1))
        if weights.a is None:
            return outputs, None
        a_out = x.to(dtypes.adapter) @ weights.a.T
        for out, part, b in zip(outputs, torch.split(a_out, self.ranks, dim=1), weights.bs, strict=True):
            if b is not None:
                _add_product(out, part, b.T)
        return outputs, a_out

    def backward(
        self,
        grads: list[Tensor],
        x: Tensor | None,
        a_out: Tensor | None,
        weights: LinearWeights,
        dtypes: ProductDtypes,
        to_x: bool = True,
    ) -> tuple[Tensor | None, list[Tensor]]:
        """Return the gradient of x (None unless `to_x`), and the gradients of A and B of each adapter.

        grads: of the outputs; with stacked weights they are views from like_outputs
        x:     the input; None without adapters
        a_out: the second result of forward
        """
        trained: list[Tensor] = []
        grad_a_out = None
        if a_out is not None and x is not None:
            grad_a_out = torch.empty_like(a_out)
            grad_bs = []
            parts = zip(torch.split(a_out, self.ranks, dim=1), torch.split(grad_a_out, self.ranks, dim=1), strict=True)
            for grad, (part, grad_part), b in zip(grads, parts, weights.bs, strict=True):
                if b is not None:
                    own = grad.to(dtypes.adapter)
                    torch.mm(own, b, out=grad_part)
                    grad_bs.append((own.T @ part).float())
            grad_a = (grad_a_out.T @ x.to(dtypes.adapter)).float()
            for piece, scale, grad_b in zip(
                torch.split(grad_a, [rank for rank in self.ranks if rank]), self.scales, grad_bs, strict=True
            ):
                trained += [piece.mul_(scale), grad_b]
        if not to_x:
            return None, trained
        if weights.stacked:
            grads = [whole_of(grads[0])]
        grad_x = grads[0] @ weights.frozen[0]
        for grad, weight in zip(grads[1:], weights.frozen[1:], strict=True):
            grad_x.addmm_(grad, weight)
        if grad_a_out is not None and weights.a is not None:
            _add_product(grad_x, grad_a_out, weights.a)
        return grad_x, trained


def _places(weights: Sequence[Tensor], biases: Sequence[Tensor]) -> list[int]:
    return [tensor.data_ptr() for tensor in (*weights, *biases)]


def _add_product(out: Tensor, left: Tensor, right: Tensor) -> None:
    if out.dtype == left.dtype:
        out.addmm_(left, right)
    else:
        out.add_(left @ right)
