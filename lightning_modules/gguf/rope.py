"""Rotary positions in a GGUF file."""

from typing import TYPE_CHECKING, Any

import torch

from errors import UserError

if TYPE_CHECKING:
    from gguf import GGUFWriter

# What llama.cpp computes as transformers does. `llama3` is a factor for each frequency, which only the architecture
# `llama` has a tensor for
KINDS = {"qwen2": ("default", "linear"), "llama": ("default", "linear", "llama3")}
FREQUENCIES = "rope_freqs.weight"
OTHER = "export without --gguf, for transformers or vLLM"


def check_rope(config: Any) -> None:
    """Raise UserError for positions that llama.cpp would compute otherwise."""
    kind, parameters = rope_kind(config), config.rope_parameters
    if kind not in KINDS[config.model_type]:
        raise UserError("--gguf", None, f"the positions of the base ({kind}) are not known here for a GGUF file", OTHER)
    if parameters.get("partial_rotary_factor", 1.0) != 1.0:
        problem = "the base has positions in a part of each head only, which llama.cpp computes otherwise"
        raise UserError("--gguf", None, problem, OTHER)


def rope_kind(config: Any) -> str:
    """Return the kind of a config's positions, as transformers names it."""
    return str(config.rope_parameters.get("rope_type", "default"))


def write_rope(writer: "GGUFWriter", config: Any, head_width: int) -> None:
    """Write the base of the frequencies, and their scaling."""
    from gguf import RopeScalingType

    writer.add_rope_dimension_count(head_width)
    writer.add_rope_freq_base(float(config.rope_parameters["rope_theta"]))
    if rope_kind(config) == "linear":
        writer.add_rope_scaling_type(RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(float(config.rope_parameters["factor"]))


def frequency_divisors(model: Any, head_width: int) -> torch.Tensor | None:
    """Return by what llama.cpp divides each frequency, (head width / 2,) float32, for the kind `llama3`; else None."""
    if rope_kind(model.config) != "llama3":
        return None
    exponents = torch.arange(0, head_width, 2, dtype=torch.float64) / head_width
    plain = float(model.config.rope_parameters["rope_theta"]) ** -exponents
    scaled: torch.Tensor = model.model.rotary_emb.inv_freq.cpu().double()
    return (plain / scaled).float()
