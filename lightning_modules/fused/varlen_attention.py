"""Attention within rows that lie one after another in one sequence, for any transformers model.

transformers would build a (T, T) mask from restarting positions, and leave the fast causal kernels for it. Here the
bounds of the rows go with the call instead: on CUDA in half precision to a kernel for rows of any length (the flash
attention that torch has), elsewhere row by row to torch's causal attention. Without bounds, as when text is generated,
it is transformers' own SDPA attention.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from datamodules.batches.collate import Batch

NAME = "within_rows"
HALF = (torch.float16, torch.bfloat16)
# transformers passes a mask of four dimensions on as it is, instead of making one
NO_MASK = torch.zeros(1, 1, 1, 1)


class Bounds(NamedTuple):
    """Where the rows of a sequence begin and end: (rows + 1,) int32 on the device, and their lengths on the host."""

    starts: Tensor
    lengths: list[int]

    @classmethod
    def of(cls, batch: Batch) -> "Bounds":
        return cls(batch.starts, batch.lengths)


def attend(
    query: Tensor, key: Tensor, value: Tensor, bounds: Bounds, scale: float | None = None, window: int | None = None
) -> Tensor:
    """Causal attention that stays within rows. query (T, heads, d); key, value (T, their heads, d); returns query's
    shape. `window`: how many tokens, itself the last, a token sees."""
    longest = max(bounds.lengths)
    window = window if window is not None and window < longest else None
    if query.is_cuda and query.dtype in HALF:
        # What torch.nn.attention.varlen calls: that one takes the host 0.1 ms, and not every release has it
        band = {} if window is None else {"window_size_left": window - 1, "window_size_right": 0}
        starts = bounds.starts
        out: Tensor = torch.ops.aten._flash_attention_forward(
            query, key, value, starts, starts, longest, longest, 0.0, True, False, scale=scale, **band
        )[0]
        return out
    rows = zip(*(torch.split(part, bounds.lengths) for part in (query, key, value)), strict=True)
    attended = [_one_row(q, k, v, scale, window) for q, k, v in rows]
    return attended[0] if len(attended) == 1 else torch.cat(attended)


def _one_row(query: Tensor, key: Tensor, value: Tensor, scale: float | None, window: int | None) -> Tensor:
    q, k, v = (part.transpose(0, 1)[None] for part in (query, key, value))  # (1, heads, t, d)
    mask = None
    if window is not None:
        back = torch.arange(len(query), device=query.device)
        back = back[:, None] - back
        mask = (back >= 0) & (back < window)
    gqa = q.shape[1] != k.shape[1]
    out = F.scaled_dot_product_attention(q, k, v, mask, is_causal=mask is None, scale=scale, enable_gqa=gqa)
    return out[0].transpose(0, 1)


def use_within_rows(model: Any) -> None:
    """Has a transformers model attend by `attend` wherever `bounds` are given to it."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.masking_utils import sdpa_mask

    def attention(
        module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **given: Any
    ) -> tuple[Tensor, None]:
        bounds: Bounds | None = given.pop("bounds", None)
        if bounds is None:
            return sdpa_attention_forward(module, query, key, value, attention_mask, **given)  # type: ignore[no-any-return]
        q, k, v = (part[0].transpose(0, 1) for part in (query, key, value))
        return attend(q, k, v, bounds, given.get("scaling"), given.get("sliding_window"))[None], None

    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.set_attn_implementation(NAME)
