"""Private APIs of peft: what a LoRA layer holds, and the names of tensors in an adapter's file."""

import dataclasses
import os
from collections.abc import Iterator
from typing import Any, NamedTuple

from torch import Tensor, nn

ADAPTER = "default"  # the name that get_peft_model gives to an adapter
NO_COMPILER = "TORCHDYNAMO_DISABLE"  # torch.compile reads this variable at each call


def load() -> None:
    """Import peft without the compiler of torch, which takes longer than peft.

    Why private: peft imports bitsandbytes where that is installed, and bitsandbytes prepares some functions for the
    compiler at once. A 4-bit base has imported bitsandbytes before this is called, and keeps its compiled functions.
    """
    before = os.environ.get(NO_COMPILER)
    os.environ[NO_COMPILER] = "1"
    try:
        import peft  # noqa: F401
    finally:
        del os.environ[NO_COMPILER]
        if before is not None:
            os.environ[NO_COMPILER] = before


class LoraParts(NamedTuple):
    """The adapter of one linear layer: out = base(x) + scale * B A x."""

    a: nn.Linear  # (in -> rank)
    b: nn.Linear  # (rank -> out)
    scale: float

    @property
    def rank(self) -> int:
        return self.a.out_features


def base_layer(module: Any) -> nn.Linear:
    """Return the linear layer under peft's LoRA layer; of a module without an adapter the module itself."""
    base: nn.Linear = module.get_base_layer() if hasattr(module, "get_base_layer") else module
    return base


def lora_parts(module: Any) -> LoraParts | None:
    """Return the adapter of a linear layer; None if it has none.

    Why private: a layer's `lora_A`, `lora_B` and `scaling`, by the adapter's name, are the only way to its tensors.
    """
    if base_layer(module) is module:
        return None
    return LoraParts(module.lora_A[ADAPTER], module.lora_B[ADAPTER], float(module.scaling[ADAPTER]))


def switched_reason(module: Any) -> str | None:
    """Return why the adapter of one of peft's layers takes no part in its output at present; None if it does.

    Why private: `disable_adapters`, `merged` and `active_adapters` are states that only peft's own layers read.
    """
    if module.disable_adapters:
        return "its adapters are switched off"
    if module.merged:
        return "its adapters are merged"
    return None if module.active_adapters == [ADAPTER] else "other adapters are active"


def not_plain_lora_reason(module: Any, trains: bool = True) -> str | None:
    """Return why a layer's output is not base(x) + scale * B A x, with a plain linear base; None if it is, also without
    an adapter.

    trains: whether dropout takes part

    Why private: peft has no public way to ask for variants (DoRA and others), dropout and biases of a layer.
    """
    base = base_layer(module)
    if type(base) is not nn.Linear:
        return f"{type(base).__name__} holds the weights"
    if base is module:
        return None
    if module.lora_variant:
        return "its adapters are not plain LoRA"
    if trains and any(getattr(drop, "p", 0.0) > 0 for drop in module.lora_dropout.values()):
        return "its adapters have dropout"
    if module.lora_bias.get(ADAPTER):
        return "its adapters have biases"
    return None


def lora_layers(lm: Any) -> Iterator[tuple[str, Any]]:
    """Yield the names and modules of the layers that have an adapter."""
    from peft.tuners.lora import LoraLayer

    for name, module in lm.get_base_model().named_modules():
        if isinstance(module, LoraLayer):
            yield name, module


def decompose_(layer: Any, init: str) -> None:
    """Initialize a layer's adapter from its base weight by PiSSA or OLoRA, and subtract the adapter from the weight.

    Why private: the public way, init_lora_weights, rounds the adapters to the base's dtype afterwards.
    """
    layer.olora_init(ADAPTER) if init == "olora" else layer.pissa_init(ADAPTER, init)


def lora_config_fields() -> dict[str, bool]:
    """Return the settings of peft.LoraConfig, and whether each one switches to a variant of LoRA.

    Why private: only the metadata of a field says that it is a variant.
    """
    from peft import LoraConfig

    return {f.name: bool(f.metadata.get("is_lora_variant")) for f in dataclasses.fields(LoraConfig)}


def lora_file_key(layer: str, matrix: str) -> str:
    """Return the name of a layer's A or B (`matrix`) in an adapter's file.

    Why private: `save_pretrained` writes these names, and PEFT does not export a function for them.
    """
    return f"base_model.model.{layer}.lora_{matrix}.weight"


def is_a_key(key: str) -> bool:
    """Return whether a name from lora_file_key is that of an A."""
    return ".lora_A." in key


def new_embeddings_file_key(module: str) -> str:
    """Return the name in an adapter's file of the trained embeddings beside `module`, a path in the causal LM.

    Why private: peft reads this name for `trainable_token_indices`; it holds the embeddings, not a difference.
    """
    return f"base_model.model.{module}.token_adapter.trainable_tokens_delta"


def adapter_tensors(lm: Any) -> dict[str, Tensor]:
    """Return the tensors of a peft model's adapters, which share its memory, by their names in an adapter's file."""
    from peft import get_peft_model_state_dict

    # A state given by the caller is not compared with shapes; else peft warns of a bias as of a part of a shard
    tensors: dict[str, Tensor] = get_peft_model_state_dict(lm, lm.state_dict(), save_embedding_layers=False)
    return tensors


def file_key_layer(key: str) -> str | None:
    """Return the layer of a name from an adapter's file that is that of an A or a B; None for other names."""
    layer, matrix, _ = key.removeprefix("base_model.model.").partition(".lora_")
    return layer if matrix else None


def is_trained_key(key: str) -> bool:
    """Return whether a name in an adapter's file is that of a part of an adapter, or of embeddings of single tokens."""
    return ".lora_" in key or key == new_embeddings_file_key(_module_of(key))


def _module_of(key: str) -> str:
    return key.removeprefix("base_model.model.").partition(".token_adapter.")[0]
