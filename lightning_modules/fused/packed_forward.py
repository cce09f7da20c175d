"""What attention and fused layers need to know about a packed sequence, and the one keyword that carries it."""

from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightning_modules.internals.torch_internals import autocast_dtype

KEYWORD = "packed_forward"


class RowBounds(NamedTuple):
    """Where the rows of a packed sequence begin and end.

    starts:  (rows + 1,) int32 on the device; the cu_seqlens of flash attention
    lengths: tokens of each row, on the host
    """

    starts: Tensor
    lengths: list[int]


class ProductDtypes(NamedTuple):
    """The dtypes of the products with frozen weights and with adapters."""

    base: torch.dtype
    adapter: torch.dtype

    @classmethod
    def current(cls, weight: Tensor) -> "ProductDtypes":
        """Return autocast's dtype for both; without autocast the weight's own, and float32 for adapters, as in peft."""
        if (dtype := autocast_dtype(weight.device.type)) is not None:
            return cls(dtype, dtype)
        return cls(weight.dtype, torch.float32)


@dataclass(frozen=True)
class PackedForward:
    """One forward pass over a packed sequence.

    ThinkNet passes it to the model as the keyword KEYWORD. transformers passes unknown keywords to each decoder layer,
    and a decoder layer passes them to its attention function. Two places read it: fused layers (patch_layers.py) read
    all of it; the attention function (varlen_attention.py) reads `bounds`.
    """

    bounds: RowBounds
    needed: Tensor | None = None  # (N,) int64 positions that the last fused layer returns; None for all
    dtypes: ProductDtypes | None = None  # of fused layers; None: layers compute as in transformers

    def as_kwargs(self) -> dict[str, Any]:
        return {KEYWORD: self}

    @staticmethod
    def take(kwargs: MutableMapping[str, Any]) -> "PackedForward | None":
        """Remove the object from the keywords of a call and return it; None in a call without one, as in generation."""
        taken: PackedForward | None = kwargs.pop(KEYWORD, None)
        return taken
