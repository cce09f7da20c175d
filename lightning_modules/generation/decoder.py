"""The forward passes of generation: prompts at once, packed; then one token of each sequence, with the cache.

The sequences that are being written have the rows 0, 1, … of the cache, without a gap, so that attention reads a view.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_modules.fused.elementwise import rms_norm, rotate, swiglu
from lightning_modules.fused.packed_forward import RowBounds
from lightning_modules.fused.varlen_attention import attend
from lightning_modules.generation.folded_weights import FoldedLayer, FoldedWeights
from lightning_modules.generation.kv_cache import KVCache
from lightning_modules.internals.transformers_internals import rotary_table

Attention = Callable[[int, FoldedLayer, Tensor, Tensor], Tensor]  # layer, q, k and v -> (T, heads, d)


class Decoder:
    """Writes sequences with folded weights.

    rows:      most sequences at once
    positions: most tokens of one, with its prompt
    """

    def __init__(self, weights: FoldedWeights, rows: int, positions: int) -> None:
        self.weights, self.cache = weights, KVCache(weights, rows, positions)
        self.lengths: list[int] = []  # tokens of each row that are in the cache
        self.at = torch.zeros(0, dtype=torch.int64, device=weights.device)  # the same, on the device
        self.cos, self.sin = rotary_table(weights.lm, positions, weights.norm.weight)
        self.rows, self.keys = (torch.arange(n, device=weights.device) for n in (rows, positions))

    def add(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """Give rows to prompts, after the rows in use. Return the logits after each, (prompts, known ids)."""
        device, lengths = self.weights.device, [len(prompt) for prompt in prompts]
        ids = torch.tensor([token for prompt in prompts for token in prompt]).to(device)
        starts = torch.tensor([0, *lengths]).cumsum(0)
        rows = torch.repeat_interleave(torch.tensor(lengths)) + len(self.lengths)
        positions = (torch.arange(len(ids)) - starts[:-1].repeat_interleave(torch.tensor(lengths))).to(device)
        bounds, rows = RowBounds(starts.int().to(device), lengths), rows.to(device)

        def attention(number: int, layer: FoldedLayer, query: Tensor, key_value: Tensor) -> Tensor:
            self.cache.write(number, rows, positions, key_value)
            key, value = key_value.chunk(2, 1)
            return attend(query, key, value, bounds, layer.scaling, layer.window)

        last = starts[1:].to(device) - 1
        logits = self._forward(ids, positions, attention, last)
        self.lengths += lengths
        self.at = torch.cat([self.at, torch.tensor(lengths).to(device)])
        return logits

    def step(self, tokens: Tensor) -> Tensor:
        """Return the logits after one more token of each row, (rows, known ids). tokens: (rows,) int64."""
        count, positions = len(self.lengths), self.at
        rows = self.rows[:count]
        shortest, longest = min(self.lengths), max(self.lengths)
        seen: dict[int | None, tuple[int, Tensor | None]] = {}

        def visible(window: int | None) -> tuple[int, Tensor | None]:
            start = 0 if window is None else max(0, shortest - window + 1)
            if shortest == longest:
                return start, None
            keys = self.keys[start : longest + 1]
            hidden = keys > positions[:, None]
            if window is not None and longest - window >= start:
                hidden |= keys <= positions[:, None] - window
            mask = torch.zeros(hidden.shape, dtype=self.weights.dtype, device=hidden.device)
            return start, mask.masked_fill_(hidden, -torch.inf)[:, None, None]

        def attention(number: int, layer: FoldedLayer, query: Tensor, key_value: Tensor) -> Tensor:
            self.cache.write(number, rows, positions, key_value)
            if layer.window not in seen:
                seen[layer.window] = visible(layer.window)
            start, mask = seen[layer.window]
            key, value = self.cache.read(number, count, start, longest + 1)
            # The queries that share a key are one group, like positions of a sequence
            groups = query.view(count, self.cache.kv_heads, -1, query.shape[-1])
            out = F.scaled_dot_product_attention(groups, key, value, mask, scale=layer.scaling)
            return out.reshape(query.shape)

        logits = self._forward(tokens, positions, attention)
        self.lengths = [length + 1 for length in self.lengths]
        self.at = positions + 1
        return logits

    def remove(self, ended: Sequence[int]) -> list[int]:
        """Free rows. The last rows move into the gaps: return the earlier number of each row that stays."""
        order = list(range(len(self.lengths)))
        for row in sorted(ended, reverse=True):
            last, length = order.pop(), self.lengths.pop()
            if row < len(order):
                self.cache.move(len(order), row, length)
                order[row], self.lengths[row] = last, length
        self.at = self.at[torch.tensor(order, dtype=torch.int64, device=self.at.device)]
        return order

    @torch.no_grad()
    def _forward(self, ids: Tensor, positions: Tensor, attention: Attention, needed: Tensor | None = None) -> Tensor:
        """ids, positions: (T,). Return the logits after each token, or after the `needed` ones."""
        weights = self.weights
        with torch.autocast(weights.device.type, enabled=False):
            cos, sin = self.cos[positions], self.sin[positions]
            x = weights.embed(ids)
            for number, layer in enumerate(weights.layers):
                normed, _ = rms_norm(x, *layer.input_norm)
                heads = layer.qkv(normed.to(weights.dtype)).view(len(x), -1, weights.head_width)
                turned = heads[:, : weights.heads + weights.kv_heads]
                rotate(turned, cos, sin, out=turned)
                attended = attention(number, layer, heads[:, : weights.heads], heads[:, weights.heads :]).flatten(1)
                if needed is not None and number == len(weights.layers) - 1:
                    x, attended = x[needed], attended[needed]
                x = x + layer.o(attended)
                normed, _ = rms_norm(x, *layer.post_attention_norm)
                x = x + layer.down(swiglu(*layer.gate_up(normed.to(weights.dtype)).chunk(2, -1)))
            return weights.logits(rms_norm(x, *weights.norm)[0])
