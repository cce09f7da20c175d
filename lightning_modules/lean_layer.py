"""Decoder layers of transformers that compute by lean.py while they train, where they are of a kind that it knows.

The modules, their names and their weights stay as they are: only the `forward` of a layer is another one, and only for
rows in one sequence (attention.Bounds). With a cache, as in generation, the layer's own forward runs.
"""

from types import MethodType
from typing import Any

from torch import Tensor, nn

from lightning_modules.attention import Bounds, attend
from lightning_modules.lean import GatedMlp, Linear, Output, QueryKeyValue

KNOWN = ("Qwen2DecoderLayer", "LlamaDecoderLayer")  # norm, q/k/v/o, norm, gate/up/down; silu; rotation of all of a head


def why_not(lm: nn.Module) -> str | None:
    """What about a model asks for transformers' own layers; None where all of them can be lean."""
    for layer in lm.base_model.layers:  # type: ignore[union-attr]
        if type(layer).__name__ not in KNOWN:
            return f"{type(layer).__name__} is another kind of layer"
        if getattr(lm.config, "hidden_act", "silu") != "silu":
            return f"its activation is {lm.config.hidden_act}"  # type: ignore[union-attr]
        for module in _linear(layer):
            if reason := _odd(module):
                return reason
    return None


def make_lean(lm: nn.Module) -> None:
    """Gives each layer its lean forward. The last one goes on only with the positions that a loss needs."""
    layers: Any = lm.base_model.layers
    for layer in layers:
        layer.forward = MethodType(_forward(layer.forward, layer is layers[-1]), layer)


def _forward(own: Any, last: bool) -> Any:
    def forward(
        self: Any,
        hidden_states: Tensor,
        *args: Any,
        position_embeddings: tuple[Tensor, Tensor],
        bounds: Bounds | None = None,
        needed: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """(1, T, D) -> (1, T, D); of the last layer (1, len(needed), D)."""
        if bounds is None:
            out: Tensor = own(hidden_states, *args, position_embeddings=position_embeddings, **kwargs)
            return out
        attn, mlp, x = self.self_attn, self.mlp, hidden_states[0]
        before, after = self.input_layernorm, self.post_attention_layernorm
        cos, sin = (part[0] for part in position_embeddings)
        qkv = [_now(attn.q_proj), _now(attn.k_proj), _now(attn.v_proj)]
        q, k, v, x = QueryKeyValue.apply(
            x, before.weight, before.variance_epsilon, cos, sin, qkv, *(t for one in qkv for t in one.trained())
        )
        attended = attend(q, k, v, bounds, attn.scaling, getattr(attn, "sliding_window", None)).flatten(1)
        if last and needed is not None:
            x, attended = x[needed], attended[needed]
        o = _now(attn.o_proj)
        x = Output.apply(x, attended, o, *o.trained())
        pair, down = [_now(mlp.gate_proj), _now(mlp.up_proj)], _now(mlp.down_proj)
        trained = [t for one in (*pair, down) for t in one.trained()]
        return GatedMlp.apply(x, after.weight, after.variance_epsilon, pair, down, *trained)[None]

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
    if module.use_dora.get("default") or getattr(module, "lora_variant", None):
        return "its adapters are not plain LoRA"
    if any(p > 0 for p in (getattr(d, "p", 0.0) for d in module.lora_dropout.values())):
        return "adapters drop some of their inputs"
    if module.lora_bias.get("default"):
        return "adapters have biases"
    return None


def _now(module: Any) -> Linear:
    """A layer's weights at this moment: sharded ones are whole only within a forward pass."""
    base = getattr(module, "base_layer", module)
    if base is module:
        return Linear(base.weight, base.bias, None, None, 0.0)
    a, b = module.lora_A["default"].weight, module.lora_B["default"].weight
    return Linear(base.weight, base.bias, a, b, module.scaling["default"])
