"""The weights of a net as generation reads them: adapters folded in, and projections of the same input in one matrix.

All that is folded, stacked or packed is a copy, so the net's own weights stay as they are, to the bit. On a CPU every
linear layer is copied into the layout of the CPU's matrix units. On a GPU only layers with adapters are copied.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_modules.fused.decoder_layer import NormWeights
from lightning_modules.internals.peft_internals import base_layer, lora_parts, not_plain_lora_reason, switched_reason
from lightning_modules.internals.torch_internals import (
    autocast_dtype,
    has_hooks,
    is_sharded,
    pack_linear,
    packed_linear,
)
from lightning_modules.internals.transformers_internals import (
    changing_rotary_kind,
    decoder_layers,
    final_norm,
    layer_parts,
    norm_eps,
    not_plain_reason,
)
from lightning_modules.net.new_token_embeddings import NewTokenHead

if TYPE_CHECKING:
    from lightning_modules.net.think_net import ThinkNet

PACKED_FOR = 16  # rows of an input that the layout of packed weights is chosen for


def not_foldable_reason(net: "ThinkNet") -> str | None:
    """Return why only transformers' own layers can generate with this net at present; None if folded weights can."""
    lm: Any = net.causal_lm
    if reason := not_plain_reason(lm):
        return reason
    layers = decoder_layers(lm)
    if any(map(is_sharded, layers)):
        return "its weights are sharded"
    head = lm.get_output_embeddings()
    linear = [module for layer in layers for module in layer_parts(layer).linear]
    for module in [*linear, head.base if isinstance(head, NewTokenHead) else head]:
        if reason := not_plain_lora_reason(module, trains=False):
            return reason
        if base_layer(module) is not module and (reason := switched_reason(module)):
            return reason
    if kind := changing_rotary_kind(lm):
        return f"its rotary embedding is {kind}"
    embedding = lm.get_input_embeddings()  # it is called
    if any(has_hooks(module) for module in lm.modules() if module is not embedding):
        return "its modules have hooks"
    if len({parameter.device for parameter in lm.parameters()}) > 1:
        return "it is on several devices"
    return None


class Linear:
    """Linear layers with the same input: x (T, in) -> (T, sum of out)."""

    def __init__(self, weights: Sequence[Tensor], biases: Sequence[Tensor | None], stack: bool) -> None:
        if stack and len(weights) > 1:
            if any(bias is not None for bias in biases):
                given = [w.new_zeros(len(w)) if b is None else b for w, b in zip(weights, biases, strict=True)]
                biases = [torch.cat(given)]
            weights, biases = [torch.cat(list(weights))], biases[:1]
        packed = [pack_linear(weight, PACKED_FOR) for weight in weights]
        self.parts = [  # the weight, whether it is packed, the bias
            (weight if pack is None else pack, pack is not None, bias)
            for weight, pack, bias in zip(weights, packed, biases, strict=True)
        ]

    def __call__(self, x: Tensor) -> Tensor:
        outs = [
            packed_linear(x, weight, bias) if packed else F.linear(x, weight, bias)
            for weight, packed, bias in self.parts
        ]
        return outs[0] if len(outs) == 1 else torch.cat(outs, -1)


class FoldedLayer(NamedTuple):
    """A decoder layer."""

    input_norm: NormWeights
    qkv: Linear
    o: Linear
    post_attention_norm: NormWeights
    gate_up: Linear
    down: Linear
    scaling: float  # of attention scores
    window: int | None  # tokens that a token sees, itself included


class FoldedWeights:
    """The weights of a net, for as long as they do not change.

    known_ids: logits are computed for the ids below it
    """

    @torch.no_grad()
    def __init__(self, net: "ThinkNet", known_ids: int) -> None:
        lm: Any = net.causal_lm
        self.lm = lm
        norm = final_norm(lm)
        self.dtype = autocast_dtype(norm.weight.device.type) or norm.weight.dtype  # of products
        self.device = norm.weight.device
        self.embed: Any = lm.get_input_embeddings()
        self.layers = [self._layer(layer_parts(layer)) for layer in decoder_layers(lm)]
        self.norm = NormWeights(norm.weight, norm_eps(norm))
        first = layer_parts(decoder_layers(lm)[0])
        self.head_width = first.head_width
        self.heads, self.kv_heads, _ = (base_layer(module).out_features // self.head_width for module in first.qkv)
        head = lm.get_output_embeddings()
        self.new = head if isinstance(head, NewTokenHead) else None
        linear: Any = head.base if isinstance(head, NewTokenHead) else head
        bias = None if linear.bias is None else linear.bias[:known_ids].to(self.dtype)
        self._head = Linear([linear.weight[:known_ids].to(self.dtype)], [bias], stack=False)

    def logits(self, hidden: Tensor) -> Tensor:
        """(T, D) after the final norm -> (T, known ids)."""
        logits = self._head(hidden.to(self.dtype))
        if self.new is not None:
            own = F.linear(hidden.float(), self.new.embeddings.float())
            logits.index_copy_(-1, self.new.index, own.to(logits.dtype))
        return logits

    def _layer(self, parts: Any) -> FoldedLayer:
        before, after = (NormWeights(n.weight, norm_eps(n)) for n in (parts.input_norm, parts.post_attention_norm))
        qkv, o, gate_up, down = map(self._linear, parts.groups)
        return FoldedLayer(before, qkv, o, after, gate_up, down, parts.scaling, parts.sliding_window)

    def _linear(self, modules: Sequence[Any]) -> Linear:
        weights = [_folded(module, self.dtype) for module in modules]
        given = [base_layer(module).bias for module in modules]
        biases = [None if bias is None else bias.detach().to(self.dtype) for bias in given]
        copied = self.device.type == "cpu" or any(base_layer(module) is not module for module in modules)
        return Linear(weights, biases, stack=copied)


def _folded(module: Any, dtype: torch.dtype) -> Tensor:
    """W + scale B A, (out, in), added in float32 and rounded once."""
    weight, adapter = base_layer(module).weight.detach(), lora_parts(module)
    if adapter is None:
        return weight.to(dtype)
    b, a = adapter.b.weight.detach().float(), adapter.a.weight.detach().float()
    return torch.addmm(weight.float(), b, a, alpha=adapter.scale).to(dtype)
