"""The base model: a causal LM from a folder or the hub."""

import sys
from typing import TYPE_CHECKING, Any, Literal

import torch

from errors import UserError
from hub import model_folder
from lightning_modules.net.lora import LoraSettings
from lightning_modules.net.quantize import Quantize, check_quantize, compute_as_in_training, quantization

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Dtype = Literal["float32", "bfloat16", "float16"]
VOCABULARY_MULTIPLE = 64  # of the size of a vocabulary that must grow; fills the tiles of tensor cores


def check_base(dtype: Dtype, lora: LoraSettings | None, from_scratch: bool, quantize: Quantize | None) -> None:
    """Raise UserError if the settings of base and adapters do not fit each other."""
    if lora is not None:
        lora.check()
        if from_scratch:
            problem = "would leave random weights frozen under adapters"
            raise UserError("model.from_scratch", True, problem, "set model.lora null with it")
    elif dtype != "float32":
        fix = "set model.dtype float32, or model.lora to train adapters"
        raise UserError("model.dtype", dtype, "is not precise enough for trained weights", fix)
    check_quantize(quantize, lora, from_scratch)


def load_base(
    name: str,
    revision: str | None,
    dtype: Dtype,
    from_scratch: bool = False,
    quantize: Quantize | None = None,
    trust_remote_code: bool = False,
) -> "PreTrainedModel":
    """Return the base model in `dtype`; with `from_scratch` with random weights.

    With `quantize` the linear layers but the head have 4 bits per weight, and compute in `dtype`. Raises UserError if
    there is no such model, its files cannot be read as one, or it needs code of its own that is not trusted.
    """
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.utils import logging

    if not sys.stderr.isatty():
        logging.disable_progress_bar()
    folder = model_folder(name, revision, weights=not from_scratch, code=trust_remote_code)
    given: dict[str, Any] = {"dtype": getattr(torch, dtype), "trust_remote_code": trust_remote_code}
    try:
        if from_scratch:
            config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
            return AutoModelForCausalLM.from_config(config, **given)
        if quantize is None:
            return AutoModelForCausalLM.from_pretrained(folder, **given)
        four_bits = quantization(quantize, given["dtype"])
        model = AutoModelForCausalLM.from_pretrained(folder, quantization_config=four_bits, **given)
        compute_as_in_training(model)
        return model
    except Exception as error:  # OSError, ValueError, KeyError, SafetensorError: depends on the damage
        if needs_own_code(error):
            raise own_code_refused(name) from error
        problem = f"cannot be loaded ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
        raise UserError(
            "model.name", name, problem, "give a decoder-only transformers model with its weights"
        ) from error


def needs_own_code(error: Exception) -> bool:
    """Return whether transformers refused a model because it would have to run Python code of the model's folder."""
    return "trust_remote_code" in str(error)


def own_code_refused(name: str) -> UserError:
    """Return the error for a model that comes with Python code of its own."""
    problem = f"keeps the Python code of {name} from running, which the model needs"
    return UserError("model.trust_remote_code", False, problem, "set it to true if you trust its author")


def grow_vocabulary(base: "PreTrainedModel", size: int) -> None:
    """Give the model at least `size` embeddings; added ones are 0."""
    known = base.get_input_embeddings().num_embeddings
    if size <= known:
        return
    base.resize_token_embeddings(size, pad_to_multiple_of=VOCABULARY_MULTIPLE, mean_resizing=False)
    with torch.no_grad():  # no checkpoint holds them, so random values would differ after loading
        base.get_input_embeddings().weight[known:] = 0
        base.get_output_embeddings().weight[known:] = 0
