"""The weights of a model rounded to the dtype of an export."""

from typing import Any

import torch

from errors import UserError

FIX = "give --dtype bfloat16 or float32"


def round_weights(model: Any, dtype: torch.dtype) -> None:
    """Round the float32 weights of a model to values that `dtype` has. They stay in float32.

    Raises UserError for a weight that `dtype` cannot hold: float16 ends at 65504.
    """
    largest = torch.finfo(dtype).max
    for name, weight in model.named_parameters():
        found = float(weight.detach().abs().max()) if weight.numel() else 0.0
        if not found < float("inf"):  # NaN is not less
            problem = f"the model has a value in {name} that is not a finite number"
            raise UserError("--ckpt_path", None, problem, "give another checkpoint: --ckpt_path last, or a .ckpt file")
        with torch.no_grad():
            weight.copy_(weight.to(dtype))
        if not bool(weight.isfinite().all()):
            problem = f"cannot hold {name}: it has {found:.6g}, and the largest number is {largest:g}"
            raise UserError("--dtype", dtype_name(dtype), problem, FIX)


def dtype_name(dtype: torch.dtype) -> str:
    """Return the name of a dtype as a setting has it."""
    return str(dtype).removeprefix("torch.")
