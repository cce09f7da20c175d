"""The number types of a GGUF file: F16, BF16 and Q8_0, and how far each may round.

Vectors (norms, biases) stay F32, as in the files of llama.cpp. Q8_0 has a scale in F16 for each 32 numbers of a row;
a matrix with other rows stays F16.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from errors import UserError

if TYPE_CHECKING:
    from gguf import GGMLQuantizationType

GgufType = Literal["F16", "BF16", "Q8_0"]
BLOCK = 32  # numbers that share a scale in Q8_0
# Half of the distance between two neighbours: relative to a number, and between the smallest ones of F16
HALF_STEP = {"F16": 2.0**-11, "BF16": 2.0**-8}
SMALLEST = 2.0**-25
LARGEST = {"F16": 65504.0, "BF16": 3.3895e38, "Q8_0": 127 * 65504.0}


def tensor_type(kind: GgufType, shape: Sequence[int]) -> "GGMLQuantizationType":
    """Return the type of a tensor of this shape in a file of a kind."""
    from gguf import GGMLQuantizationType

    if len(shape) == 1:
        return GGMLQuantizationType.F32
    if kind == "Q8_0" and shape[-1] % BLOCK:
        return GGMLQuantizationType.F16
    return GGMLQuantizationType[kind]


def convert(name: str, weight: np.ndarray[Any, Any], kind: "GGMLQuantizationType") -> np.ndarray[Any, Any]:
    """Return a float32 weight as the bytes of the file, a row for each row.

    Raises UserError for a value that is not finite or that the type cannot hold.
    """
    from gguf import quantize

    largest = float(np.abs(weight).max(initial=0))
    if not largest < float("inf"):  # NaN is not less
        problem = f"the model has a value in {name} that is not a finite number"
        raise UserError("--ckpt_path", None, problem, "give another checkpoint: --ckpt_path last, or a .ckpt file")
    if largest > LARGEST.get(kind.name, float("inf")):
        problem = f"cannot hold {name}: it has {largest:.6g}, and the largest number is {LARGEST[kind.name]:g}"
        raise UserError("--gguf", kind.name, problem, "give --gguf BF16")
    data: np.ndarray[Any, Any] = quantize(weight, kind)
    return data


def rounded(data: np.ndarray[Any, Any], kind: "GGMLQuantizationType") -> np.ndarray[Any, Any]:
    """Return the numbers that the bytes stand for, in float32."""
    from gguf import dequantize

    numbers: np.ndarray[Any, Any] = dequantize(data, kind)
    return numbers


def farthest(weight: np.ndarray[Any, Any], kind: "GGMLQuantizationType") -> np.ndarray[Any, Any]:
    """Return how far each number of a float32 weight may be rounded, in its shape."""
    size: np.ndarray[Any, Any] = np.abs(weight)
    if kind.name == "F32":
        return np.zeros(size.shape, size.dtype)
    if kind.name in HALF_STEP:
        near: np.ndarray[Any, Any] = size * HALF_STEP[kind.name] + SMALLEST
        return near
    # Half of a step of the scale; the scale itself is rounded to F16, and is multiplied by 127 at most
    blocks = size.reshape(*size.shape[:-1], -1, BLOCK)
    scale = blocks.max(-1, keepdims=True) / 127
    of_block = scale / 2 + 127 * (scale * HALF_STEP["F16"] + SMALLEST)
    bound: np.ndarray[Any, Any] = np.broadcast_to(of_block * (1 + 1e-6), blocks.shape).reshape(size.shape)
    return bound
