"""Decoder layers of transformers that compute by lean.py while they train, where they are of a kind that it knows.

The modules, their names and their weights stay as they are: only the `forward` of a layer is another one, and only for
rows in one sequence (attention.Bounds). With a cache, as in generation, the layer's own forward runs.
"""

from collections.abc import Callable
from functools import partial
from types import MethodType
from typing import Any

from torch import Tensor, nn

from lightning_modules.fused.decoder_layer import AfterAttention, BeforeAttention, Norm, Use
from lightning_modules.fused.lora_linear import Dtypes, FusedLoRALinear
from lightning_modules.fused.varlen_attention import Bounds, attend

KNOWN = ("Qwen2DecoderLayer", "LlamaDecoderLayer")  # norm, q/k/v/o, norm, gate/up/down; silu; all of a head is turned


def unsupported_reason(lm: Any) -> str | None:
    """What about a model asks for transformers' own layers; None where all of them can be lean."""
    for layer in lm.base_model.layers:
        if type(layer).__name__ not in KNOWN:
            return f"{type(layer).__name__} is another kind of layer"
        if lm.config.hidden_act != "silu":
            return f"its activation is {lm.config.hidden_act}"
        for module in _linear(layer):
            if reason := _odd(module):
                return reason
    return None


def patch_layers(lm: Any) -> None:
    """Gives each layer its lean forward. The last one goes on only with the positions that a loss needs."""
    layers = lm.base_model.layers
    for layer in layers:
        layer.forward = MethodType(_forward(layer, layer is layers[-1]), layer)


def _forward(layer: Any, last: bool) -> Callable[..., Tensor]:
    own = layer.forward
    q, k, v, o, gate, up, down = _linear(layer)
    groups = [FusedLoRALinear([q, k, v]), FusedLoRALinear([o]), FusedLoRALinear([gate, up]), FusedLoRALinear([down])]

    def forward(
        self: Any,
        hidden_states: Tensor,
        *args: Any,
        position_embeddings: tuple[Tensor, Tensor],
        bounds: Bounds | None = None,
        needed: Tensor | None = None,
        dtypes: Dtypes | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """(1, T, D) -> (1, T, D); of the last layer (1, len(needed), D)."""
        if bounds is None or dtypes is None:
            within = {} if bounds is None else {"bounds": bounds}  # attention stays within rows either way
            out: Tensor = own(hidden_states, *args, position_embeddings=position_embeddings, **within, **kwargs)
            return out
        compute = partial(lean, self, position_embeddings, bounds, needed, dtypes)
        if self.gradient_checkpointing and self.training:  # as the forward would that this one stands in for
            again: Tensor = self._gradient_checkpointing_func(compute, hidden_states)
            return again
        return compute(hidden_states)

    def lean(
        self: Any,
        position_embeddings: tuple[Tensor, Tensor],
        bounds: Bounds,
        needed: Tensor | None,
        dtypes: Dtypes,
        hidden_states: Tensor,
    ) -> Tensor:
        # A sharded weight is put together for each pass, in memory of its own; on a CPU one product is not faster
        may_fuse = hidden_states.is_cuda and not hasattr(self, "unshard")
        qkv, o, gate_up, down = (Use(group, group.weights(dtypes, may_fuse)) for group in groups)
        x, (cos, sin) = hidden_states[0], (part[0] for part in position_embeddings)
        before, after = (
            Norm(n.weight, n.variance_epsilon) for n in (self.input_layernorm, self.post_attention_layernorm)
        )
        query, key, value, x = BeforeAttention.apply(x, before, cos, sin, qkv, dtypes, *qkv.group.trained())  # type: ignore[no-untyped-call]
        attn = self.self_attn
        attended = attend(query, key, value, bounds, attn.scaling, getattr(attn, "sliding_window", None)).flatten(1)
        if last and needed is not None:
            x, attended = x[needed], attended[needed]
        trained = [t for use in (o, gate_up, down) for t in use.group.trained()]
        y: Tensor = AfterAttention.apply(x, attended, after, o, gate_up, down, dtypes, *trained)  # type: ignore[no-untyped-call]
        return y[None]

    return forward


def _linear(layer: Any) -> list[Any]:
    attn, mlp = layer.self_attn, layer.mlp
    return [attn.q_proj, attn.k_proj, attn.v_proj, attn.o_proj, mlp.gate_proj, mlp.up_proj, mlp.down_proj]


def _odd(module: Any) -> str | None:
    base = getattr(module, "base_layer", module)
    if type(base) is not nn.Linear:
        return f"{type(base).__name__} holds the weights"
    if base.weight.requires_grad:
        return "all weights are trained"
    if base is module:
        return None
    if module.lora_variant:
        return "its adapters are not plain LoRA"
    if any(getattr(drop, "p", 0.0) > 0 for drop in module.lora_dropout.values()):
        return "adapters drop some of their inputs"
    if module.lora_bias.get("default"):
        return "adapters have biases"
    return None
