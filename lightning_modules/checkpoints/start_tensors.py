"""Tensors that a fit begins with: their digest, a check of their values, and copying them into those of a net."""

from collections.abc import Mapping

import torch
import xxhash
from torch import Tensor

from errors import UserError
from lightning_modules.checkpoints.start_path import SETTING


def weights_digest(tensors: Mapping[str, Tensor]) -> str:
    """Return the xxh3-128 (32 hexadecimal digits) of the names, dtypes, shapes and values of tensors, in any order."""
    digest = xxhash.xxh3_128()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def require_finite(tensors: Mapping[str, Tensor], path: str) -> None:
    """Raise UserError for tensors with a value that is not finite: training would stop at its first step."""
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            problem = f"holds values that are not finite, in {name}"
            raise UserError(SETTING, path, problem, "give weights from before they broke")


def put(tensors: Mapping[str, Tensor], into: Mapping[str, Tensor], path: str) -> None:
    """Copy tensors into others of the same names and shapes. Raises UserError for the first that does not fit."""
    given, wanted = ({name: tuple(one.shape) for name, one in side.items()} for side in (tensors, into))
    for name in sorted({*given, *wanted}):
        if given.get(name) != wanted.get(name):
            there, here = (f"of shape {side[name]}" if name in side else "missing" for side in (given, wanted))
            problem = f"does not fit the model: {name} is {there} in it, and {here} in the model"
            raise UserError(SETTING, path, problem, "use the model settings that it was trained with")
    with torch.no_grad():
        for name, tensor in into.items():
            tensor.copy_(tensors[name])
