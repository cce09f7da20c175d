"""Keys and values of the sequences that are being written, in memory of a fixed size."""

import torch
from torch import Tensor

from lightning_modules.generation.folded_weights import FoldedWeights


class KVCache:
    """Keys and values of `rows` sequences of at most `positions` tokens.

    content: (layers, rows, 2 kv_heads, positions, d): the keys' heads, then the values'. A CPU gives memory to what was
             written only.
    """

    def __init__(self, weights: FoldedWeights, rows: int, positions: int) -> None:
        self.kv_heads = weights.kv_heads
        # Zeros: what was never written has no weight in attention, but 0 times a NaN would be one
        self.content = torch.zeros(
            len(weights.layers), rows, 2 * weights.kv_heads, positions, weights.head_width,
            dtype=weights.dtype, device=weights.device,
        )  # fmt: skip

    def write(self, layer: int, rows: Tensor, positions: Tensor, key_value: Tensor) -> None:
        """Keep the keys and values of tokens. rows, positions: (T,); key_value: (T, 2 kv_heads, d)."""
        self.content[layer][rows, :, positions] = key_value

    def read(self, layer: int, rows: int, start: int, end: int) -> tuple[Tensor, Tensor]:
        """Return keys and values, (rows, kv_heads, end - start, d) each, of the first rows at positions from start."""
        part = self.content[layer, :rows, :, start:end]
        return part[:, : self.kv_heads], part[:, self.kv_heads :]

    def move(self, source: int, target: int, length: int) -> None:
        """Let row `target` have the first `length` tokens of row `source`."""
        self.content[:, target, :, :length] = self.content[:, source, :, :length]
