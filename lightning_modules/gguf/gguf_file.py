"""A GGUF file, written tensor by tensor: beside the model, only one tensor is in memory."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from errors import UserError
from lightning_modules.export.check import AGAIN
from lightning_modules.gguf.layers import HEAD, detached, file_tensors, head_width, in_file_order, write_sizes
from lightning_modules.gguf.rope import FREQUENCIES, frequency_divisors
from lightning_modules.gguf.tensor_types import GgufType, convert, farthest, rounded, tensor_type

if TYPE_CHECKING:
    from gguf import GGUFWriter

log = logging.getLogger("thinkwright")


@dataclass(frozen=True)
class Written:
    """What a file must give back."""

    hashes: dict[str, str]  # of each weight of the model, as the file rounds it, in float32
    divisors: torch.Tensor | None  # of the frequencies of positions; None: the file has none
    kept: int  # matrices that are F16 because Q8_0 does not fit their rows


def write_file(path: Path, model: Any, kind: GgufType, describe: Callable[["GGUFWriter"], None]) -> Written:
    """Write a file and return what it must give back. The model in float32 has the rounded weights afterwards.

    `describe` writes the keys that are not about layers. Raises UserError for a weight that the type cannot hold, and
    OSError.
    """
    from gguf import GGMLQuantizationType, GGUFWriter, size_label

    tensors, config = file_tensors(model), model.config
    shapes = {one.name: tuple(model.get_parameter(one.weight).shape) for one in tensors}
    types = {name: tensor_type(kind, shape) for name, shape in shapes.items()}
    divisors = frequency_divisors(model, head_width(config))
    writer = GGUFWriter(path, config.model_type)
    try:
        describe(writer)
        write_sizes(writer, config)
        if divisors is not None:
            shapes[FREQUENCIES], types[FREQUENCIES] = tuple(divisors.shape), GGMLQuantizationType.F32
        for name, shape in shapes.items():
            writer.add_tensor_info(name, shape, np.dtype(np.float32), _size(shape, types[name]), types[name])
        writer.add_size_label(size_label(*writer.get_total_parameter_count()))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        assert writer.fout is not None
        (file,) = writer.fout
        writer.write_padding(file, file.tell())
        hashes = {}
        for one in tensors:
            weight = detached(model, one.weight)
            data = convert(one.weight, weight.numpy(), types[one.name])
            value = torch.from_numpy(_checked(one.weight, weight.numpy(), data, types[one.name]))
            hashes[one.weight] = _hash(value)
            with torch.no_grad():
                model.get_parameter(one.weight).copy_(value)
            _write(writer, in_file_order(torch.from_numpy(data), one.heads).numpy())
        if divisors is not None:
            _write(writer, divisors.numpy())
    finally:
        writer.close()
    if config.tie_word_embeddings:
        hashes[HEAD] = hashes["model.embed_tokens.weight"]
    kept = sum(found.name == "F16" for found in types.values()) if kind == "Q8_0" else 0
    return Written(hashes, divisors, kept)


def _size(shape: tuple[int, ...], kind: Any) -> int:
    """Return the bytes of a tensor."""
    from gguf import GGML_QUANT_SIZES

    numbers, size = GGML_QUANT_SIZES[kind]
    return int(np.prod(shape)) // numbers * size


def _write(writer: "GGUFWriter", data: Any) -> None:
    """Write a tensor. numpy's own way, which the writer takes, loses the reason when a disk is full."""
    assert writer.fout is not None
    (file,) = writer.fout
    file.write(np.ascontiguousarray(data).data.cast("B"))
    writer.write_padding(file, data.nbytes)


def _checked(name: str, weight: Any, data: Any, kind: Any) -> Any:
    """Return the numbers of the file. Raises UserError if one is farther from the model's than rounding explains."""
    value = rounded(data, kind).reshape(weight.shape)
    if not bool((np.abs(value - weight) <= farthest(weight, kind)).all()):
        raise UserError("export", name, f"is not rounded as {kind.name} rounds", AGAIN)
    return np.ascontiguousarray(value)


def _hash(value: torch.Tensor) -> str:
    import xxhash

    data: Any = value.contiguous().reshape(-1).view(torch.uint8).numpy()
    return xxhash.xxh3_128(data).hexdigest()
