"""Private APIs of transformers: how its decoder layers are built, and how a call gets through them to attention."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

# Kinds of layers that are: norm, q/k/v/o, norm, gate/up/down, silu, rotary embedding over the whole width of a head
PLAIN_DECODER_LAYERS = ("Qwen2DecoderLayer", "LlamaDecoderLayer")

_NO_MASK = torch.zeros(1, 1, 1, 1)


class Experts(NamedTuple):
    """The experts of a decoder layer. A token is sent to `per_token` of `total` ones."""

    module: nn.Module
    per_token: int
    total: int


class DecoderLayerParts(NamedTuple):
    """The modules of one of PLAIN_DECODER_LAYERS."""

    input_norm: Any
    qkv: list[nn.Module]
    o: nn.Module
    post_attention_norm: Any
    gate_up: list[nn.Module]
    down: nn.Module
    scaling: float  # of attention scores
    sliding_window: int | None
    head_width: int

    @property
    def groups(self) -> tuple[list[nn.Module], ...]:
        """The linear layers that share an input: q, k and v; o; gate and up; down."""
        return self.qkv, [self.o], self.gate_up, [self.down]

    @property
    def linear(self) -> list[nn.Module]:
        return [module for group in self.groups for module in group]


def decoder_layers(lm: Any) -> nn.ModuleList:
    """Return the decoder layers of a causal LM, first to last.

    Why private: transformers has no public way to the layers of any model; `layers` is its custom.
    """
    layers: nn.ModuleList = lm.base_model.layers
    return layers


def experts(layer: Any) -> Experts | None:
    """Return the experts of a decoder layer; None if it has none.

    Why private: the name `experts`, and the router's `top_k`, are a custom. Older releases have a list of modules where
    newer ones have one matrix of three dimensions for all experts.
    """
    module = next((m for name, m in layer.named_modules() if name.rpartition(".")[2] == "experts"), None)
    if module is None:
        return None
    per_token = next((m.top_k for m in layer.modules() if isinstance(getattr(m, "top_k", None), int)), None)
    sizes = [p.shape[0] for p in module.parameters() if p.ndim == 3]
    total = len(module) if isinstance(module, nn.ModuleList) else sizes[0] if sizes else 0
    return Experts(module, per_token, total) if per_token and total else None


def sliding_windows(lm: Any) -> tuple[int, ...]:
    """Return the window, in tokens, of each decoder layer that has one.

    Why private: a config has one window. It is of all layers, unless `layer_types` names the layers that have it.
    """
    config = lm.config.get_text_config()
    window, kinds = getattr(config, "sliding_window", None), getattr(config, "layer_types", None)
    layers = len(decoder_layers(lm)) if kinds is None else kinds.count("sliding_attention")
    return (window,) * layers if window else ()


def not_plain_reason(lm: Any) -> str | None:
    """Return what keeps a model's decoder layers from being plain ones; None if all are.

    Why private: only the class of a layer says what it computes.
    """
    for layer in decoder_layers(lm):
        if type(layer).__name__ not in PLAIN_DECODER_LAYERS:
            return f"{type(layer).__name__} is another kind of layer"
    if lm.config.hidden_act != "silu":
        return f"its activation is {lm.config.hidden_act}"
    if getattr(lm.config, "attention_dropout", 0.0):
        return f"its attention_dropout is {lm.config.attention_dropout}"
    return None


def layer_parts(layer: Any) -> DecoderLayerParts:
    """Return the modules of a plain decoder layer.

    Why private: the names of a layer's modules are no API, but LoRA's target_modules use them, too.
    """
    attn, mlp = layer.self_attn, layer.mlp
    return DecoderLayerParts(
        layer.input_layernorm, [attn.q_proj, attn.k_proj, attn.v_proj], attn.o_proj, layer.post_attention_layernorm,
        [mlp.gate_proj, mlp.up_proj], mlp.down_proj, attn.scaling, getattr(attn, "sliding_window", None),
        attn.head_dim,
    )  # fmt: skip


def norm_eps(norm: Any) -> float:
    """Return the epsilon of an RMSNorm of transformers. Why private: its name is no API."""
    return float(norm.variance_epsilon)


def final_norm(lm: Any) -> Any:
    """Return the norm after the last decoder layer. Why private: its name is no API."""
    return lm.base_model.norm


def changing_rotary_kind(lm: Any) -> str | None:
    """Return the kind of a model's rotary embedding if its angles depend on the length of a sequence; else None.

    Why private: only the module tells its kind.
    """
    kind = str(getattr(lm.base_model.rotary_emb, "rope_type", "default"))
    return kind if "dynamic" in kind or kind == "longrope" else None


def rotary_table(lm: Any, positions: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return cos and sin of the rotary embedding at positions 0, 1, …, (positions, d) each, in the dtype of `like`.

    Why private: the name `rotary_emb` is no API.
    """
    ids = torch.arange(positions, device=like.device)[None]
    cos, sin = lm.base_model.rotary_emb(like, ids)
    return cos[0], sin[0]


def enable_checkpointing(lm: Any) -> None:
    """Switch on activation checkpointing in all decoder layers.

    Why here: the method's name changed within transformers 5.
    """
    getattr(lm, "activation_checkpointing_enable", lm.gradient_checkpointing_enable)()


def disable_checkpointing(layers: Iterable[Any]) -> None:
    """Switch off activation checkpointing in these decoder layers.

    Why private: older releases of transformers 5 switch it for all layers or none.
    """
    for layer in layers:
        layer.gradient_checkpointing = False


def is_checkpointed(layer: Any) -> bool:
    """Return whether a decoder layer keeps only its input in this forward pass, and computes the rest again."""
    return bool(layer.gradient_checkpointing and layer.training)


def use_attention(lm: Any, name: str, attention: Callable[..., Any]) -> None:
    """Make a model attend by `attention`, under a name of its own, with the masks of transformers' SDPA attention.

    All public: AttentionInterface, AttentionMaskInterface, set_attn_implementation.
    """
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(name, attention)
    AttentionMaskInterface.register(name, AttentionMaskInterface()["sdpa"])
    lm.set_attn_implementation(name)


def sdpa_attention(*args: Any, **kwargs: Any) -> tuple[Tensor, None]:
    """Call transformers' own SDPA attention function, with the arguments that a decoder layer gave."""
    from transformers import AttentionInterface

    out: tuple[Tensor, None] = AttentionInterface()["sdpa"](*args, **kwargs)
    return out


def packed_hidden_states(lm: Any, input_ids: Tensor, position_ids: Tensor, **passed_on: Any) -> Tensor:
    """Return the final hidden states of one packed sequence. `passed_on` reaches layers and attention as keywords.

    input_ids, position_ids: (1, T) int64. Result: (1, T, D), or what the last layer returned, after the final norm.

    Why private: transformers builds a (T, T) mask when positions restart, and then leaves the fast causal kernels. It
    returns a mask of four dimensions as it is, so one of a single element makes it build none. And it passes keywords
    that it does not know to each layer, which passes them to its attention function; no other way leads there.
    """
    out = lm.base_model(
        input_ids=input_ids, position_ids=position_ids, attention_mask=_NO_MASK, use_cache=False, **passed_on
    )
    hidden: Tensor = out.last_hidden_state
    return hidden


@contextmanager
def narrow_windows(lm: Any, tokens: int) -> Iterator[None]:
    """Let each layer with a sliding window see this number of tokens only, so that short rows show how it is used.

    Why private: the window is in the config, for masks, and in the attention modules, for kernels.
    """
    places = [lm.config.get_text_config(), *lm.modules()]
    windows = [(place, place.sliding_window) for place in places if isinstance(_window(place), int)]
    try:
        for place, _ in windows:
            place.sliding_window = tokens
        yield
    finally:
        for place, window in windows:
            place.sliding_window = window


def _window(place: Any) -> Any:
    return getattr(place, "sliding_window", None)


@contextmanager
def without_gguf_bar() -> Iterator[None]:
    """Read a GGUF file without a progress bar for each of its tensors.

    Why private: the reader draws its bar itself, and no setting turns it off once transformers is imported.
    """
    from transformers import modeling_gguf_pytorch_utils as reader

    bar = reader.tqdm
    reader.tqdm = lambda tensors, **_: tensors
    try:
        yield
    finally:
        reader.tqdm = bar
