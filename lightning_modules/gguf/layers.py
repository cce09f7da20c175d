"""The layers that llama.cpp computes as transformers does, and the names of their tensors in a GGUF file."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from errors import UserError
from lightning_modules.gguf.rope import OTHER, check_rope, write_rope

if TYPE_CHECKING:
    from gguf import GGUFWriter

# transformers' model_type, which is llama.cpp's architecture as well
ARCHITECTURES = ("qwen2", "llama")
HEAD = "lm_head.weight"


@dataclass(frozen=True)
class FileTensor:
    """A weight of the model and its place in a GGUF file."""

    name: str  # in the file
    weight: str  # in the model's state dict
    heads: int = 0  # of a projection whose rows have another order in the file; 0: the same order


def check_layers(config: Any) -> None:
    """Raise UserError for a base whose layers llama.cpp would compute otherwise, or that are not known here."""
    kind = str(getattr(config, "model_type", ""))
    if kind not in ARCHITECTURES:
        problem = f"the base is of the architecture {kind}, and a GGUF file is written for qwen2 and llama only"
        raise UserError("--gguf", None, problem, OTHER)
    differs = {
        f"the activation {config.hidden_act}": config.hidden_act != "silu",
        "layers that see a window of tokens": {*(getattr(config, "layer_types", None) or ())} - {"full_attention"},
        # transformers reads neither from a GGUF file, so the file could not be compared
        "biases in the layers of llama": getattr(config, "attention_bias", False) or getattr(config, "mlp_bias", False),
        "heads of a width of their own": kind == "qwen2" and head_width(config) * heads(config) != config.hidden_size,
    }
    for part, found in differs.items():
        if found:
            raise UserError("--gguf", None, f"the base has {part}, which is not known here for a GGUF file", OTHER)
    check_rope(config)


def heads(config: Any) -> int:
    return int(config.num_attention_heads)


def head_width(config: Any) -> int:
    return int(getattr(config, "head_dim", None) or config.hidden_size // heads(config))


def file_tensors(model: Any) -> list[FileTensor]:
    """Return the weights in the order of the file. A head that is tied to the embedding is no tensor of its own."""
    from gguf import MODEL_ARCH, get_tensor_name_map

    config = model.config
    architecture = {"qwen2": MODEL_ARCH.QWEN2, "llama": MODEL_ARCH.LLAMA}[config.model_type]
    names = get_tensor_name_map(architecture, config.num_hidden_layers)
    # llama.cpp turns neighbouring numbers of a head for `llama`, transformers the first half with the second
    turned = {"q_proj": heads(config), "k_proj": config.num_key_value_heads} if config.model_type == "llama" else {}
    found = []
    for weight in model.state_dict():
        if weight == HEAD and config.tie_word_embeddings:
            continue
        name = names.get_name(weight, try_suffixes=(".weight", ".bias"))
        if name is None:
            raise UserError("--gguf", None, f"the weight {weight} of the base has no name in a GGUF file", OTHER)
        found.append(FileTensor(name, weight, turned.get(weight.split(".")[-2], 0)))
    return found


def in_file_order(weight: Tensor, heads: int) -> Tensor:
    """Return a query or key projection, (heads * width, …), with the two halves of each head interleaved."""
    if not heads:
        return weight
    width = weight.shape[0] // heads
    return weight.reshape(heads, 2, width // 2, *weight.shape[1:]).transpose(1, 2).reshape(weight.shape)


def write_sizes(writer: "GGUFWriter", config: Any) -> None:
    """Write the numbers from which llama.cpp builds its layers."""
    width = head_width(config)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(heads(config))
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    if width * heads(config) != config.hidden_size:
        writer.add_key_length(width)
        writer.add_value_length(width)
    write_rope(writer, config, width)


def detached(model: Any, weight: str) -> Tensor:
    """Return a weight of the model in float32, on the CPU."""
    found: Tensor = model.get_parameter(weight).detach()
    return found.to("cpu", torch.float32)
