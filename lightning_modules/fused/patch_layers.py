"""Fused layers: decoder layers of transformers that train by decoder_layer.py, if they are of a known kind.

The modules, their names and their weights stay. Only the `forward` of a layer changes, and only for a packed sequence.
A call without a PackedForward, as in generation, runs the layer's own forward.
"""

from collections.abc import Callable, Iterable
from functools import partial
from types import MethodType
from typing import Any

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lightning_modules.fused.decoder_layer import AfterAttention, BeforeAttention, LinearCall, NormWeights
from lightning_modules.fused.lora_linear import FusedLoRALinear
from lightning_modules.fused.packed_forward import PackedForward
from lightning_modules.fused.varlen_attention import attend
from lightning_modules.internals.peft_internals import base_layer, not_plain_lora_reason, switched_reason
from lightning_modules.internals.torch_internals import has_hooks, is_sharded
from lightning_modules.internals.transformers_internals import (
    decoder_layers,
    is_checkpointed,
    layer_parts,
    norm_eps,
    not_plain_reason,
)

CONTAINERS = (nn.ModuleDict, nn.ModuleList, nn.ParameterDict)  # never called


def unsupported_reason(lm: Any) -> str | None:
    """Return why a model needs transformers' own layers; None if all its layers can be fused."""
    if reason := not_plain_reason(lm):
        return reason
    for layer in decoder_layers(lm):
        for module in layer_parts(layer).linear:
            if reason := _unsupported_linear(module):
                return reason
    return None


def _unsupported_linear(module: Any) -> str | None:
    if reason := not_plain_lora_reason(module):
        return reason
    return "all weights are trained" if base_layer(module).weight.requires_grad else None


class FusedLayers:
    """Asked before each pass whether fused layers may compute it. They use the weights of a layer's modules and do not
    call these modules. So they would pass over hooks, and over adapters that are switched off or merged.
    """

    def __init__(self, layers: Iterable[Any]) -> None:
        layers = list(layers)
        inner = (module for layer in layers for module in layer.modules() if module is not layer)
        self.called = [module for module in inner if not isinstance(module, CONTAINERS)]  # hooks of a layer itself run
        linear = (module for layer in layers for module in layer_parts(layer).linear)
        self.adapted = [module for module in linear if base_layer(module) is not module]

    def suspended_reason(self) -> str | None:
        """Return why transformers' own layers must compute at present; None if they need not."""
        if any(map(has_hooks, self.called)):
            return "modules inside the layers have hooks"
        return next(filter(None, map(switched_reason, self.adapted)), None)


def patch_layers(lm: Any) -> FusedLayers:
    """Give each layer a fused forward. The last layer returns only the positions that PackedForward.needed names."""
    layers = decoder_layers(lm)
    for layer in layers:
        layer.forward = MethodType(_fused_forward(layer, layer is layers[-1]), layer)
    return FusedLayers(layers)


def _fused_forward(layer: Any, last: bool) -> Callable[..., Tensor]:
    own_forward, parts = layer.forward, layer_parts(layer)
    groups = [FusedLoRALinear(modules) for modules in parts.groups]

    def forward(
        self: Any, hidden_states: Tensor, *args: Any, position_embeddings: tuple[Tensor, Tensor], **kwargs: Any
    ) -> Tensor:
        """(1, T, D) -> (1, T, D); of the last layer (1, len(needed), D)."""
        packed = PackedForward.take(kwargs)
        if packed is None or packed.dtypes is None:
            if packed is not None:
                kwargs |= packed.as_kwargs()
            out: Tensor = own_forward(hidden_states, *args, position_embeddings=position_embeddings, **kwargs)
            return out
        compute = partial(fused, self, position_embeddings, packed)
        if is_checkpointed(self):  # the replaced forward would do it itself
            recomputed: Tensor = checkpoint(compute, hidden_states, use_reentrant=False)
            return recomputed
        return compute(hidden_states)

    def fused(
        self: Any, position_embeddings: tuple[Tensor, Tensor], packed: PackedForward, hidden_states: Tensor
    ) -> Tensor:
        dtypes = packed.dtypes
        assert dtypes is not None
        # FSDP2 gathers a sharded weight into memory of its own for each pass; on a CPU one product is not faster
        may_stack = hidden_states.is_cuda and not is_sharded(self)
        qkv, o, gate_up, down = (LinearCall(group, group.weights(dtypes, may_stack)) for group in groups)
        parts = layer_parts(self)
        before, after = (NormWeights(n.weight, norm_eps(n)) for n in (parts.input_norm, parts.post_attention_norm))
        x, (cos, sin) = hidden_states[0], (part[0] for part in position_embeddings)
        query, key, value, x = BeforeAttention.apply(x, before, cos, sin, qkv, dtypes, *qkv.linear.trained())  # type: ignore[no-untyped-call]
        attended = attend(query, key, value, packed.bounds, parts.scaling, parts.sliding_window).flatten(1)
        if last and packed.needed is not None:
            x, attended = x[packed.needed], attended[packed.needed]
        trained = [tensor for call in (o, gate_up, down) for tensor in call.linear.trained()]
        y: Tensor = AfterAttention.apply(x, attended, after, o, gate_up, down, dtypes, *trained)  # type: ignore[no-untyped-call]
        return y[None]

    return forward
