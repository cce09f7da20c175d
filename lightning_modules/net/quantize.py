"""A frozen base with 4 bits per weight, by bitsandbytes (QLoRA, arXiv 2305.14314)."""

from importlib.util import find_spec
from typing import Any, Literal

import torch
from torch import nn

from errors import UserError
from lightning_modules.net.lora import LoraSettings

Quantize = Literal["nf4"]


def check_quantize(quantize: Quantize | None, lora: LoraSettings | None, from_scratch: bool) -> None:
    """Raise UserError if the base cannot be held in 4 bits."""
    if quantize is None:
        return
    if from_scratch:
        problem, fix = "needs a pretrained base", "set model.from_scratch false, or model.quantize null"
    elif lora is None:
        problem, fix = "holds weights that cannot be trained", "set model.lora to train adapters"
    elif lora.changes_base:
        problem = f"and init_lora_weights {lora.peft['init_lora_weights']!r} both change the base's weights"
        fix = "remove model.lora.peft.init_lora_weights, or set model.quantize null"
    elif find_spec("bitsandbytes") is None:
        problem = "needs a package that is not installed"
        fix = "install it: pip install -c constraints.txt bitsandbytes"
    else:
        return
    raise UserError("model.quantize", quantize, problem, fix)


def quantization(quantize: Quantize, dtype: torch.dtype) -> Any:
    """Return transformers' settings for a base in NormalFloat4, with scales in 8 bits and products in `dtype`.

    Embedding, norms and head stay in `dtype`. peft's `prepare_model_for_kbit_training` would hold them in float32,
    2.5 GB with Qwen1.5-1.8B, so it is not called.
    """
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=quantize,
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def compute_as_in_training(model: nn.Module) -> None:
    """Make evaluation compute as training does.

    On a CPU with bfloat16 instructions, bitsandbytes 0.50 repacks the weights at the first evaluation. From then on no
    gradient passes through the layer, and layers whose width is not a multiple of 64 fail.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False  # type: ignore[assignment]
