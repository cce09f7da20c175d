"""Causal attention within the rows of a packed sequence, for any transformers model.

On CUDA in half precision one flash-attention kernel serves rows of any length, the fastest that is installed
(flash_kernels.py). Elsewhere, and with attention dropout, each row goes to torch's causal attention. A call without a
PackedForward, as in generation, uses transformers' own SDPA attention.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_modules.fused.flash_kernels import AttentionKind, kernel_of
from lightning_modules.fused.packed_forward import PackedForward, RowBounds
from lightning_modules.internals.torch_internals import flash_attention, has_values
from lightning_modules.internals.transformers_internals import sdpa_attention, use_attention

NAME = "within_rows"  # of the attention implementation, in transformers
NOT_COMPUTED = {"softcap", "s_aux"}  # caps of scores (Gemma 2) and sinks (gpt-oss), which torch's kernels do not have
HALF = (torch.float16, torch.bfloat16)


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bounds: RowBounds,
    scale: float | None = None,
    window: int | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """Return causal attention within rows, in query's shape.

    query:   (T, heads, d); key, value (T, their heads, d)
    window:  number of tokens that a token sees, itself included
    dropout: probability of dropout on the attention weights
    """
    longest = max(bounds.lengths)
    window = window if window is not None and window < longest else None
    if query.is_cuda and query.dtype in HALF and not dropout:
        kind = AttentionKind(query.device, query.dtype, query.shape[1], key.shape[1], query.shape[2])
        kernel = kernel_of(kind) if has_values(query) else flash_attention  # fake tensors, of the planner
        return kernel(query, key, value, bounds.starts, longest, scale, window)
    rows = zip(*(torch.split(part, bounds.lengths) for part in (query, key, value)), strict=True)
    attended = [_one_row(q, k, v, scale, window, dropout) for q, k, v in rows]
    return attended[0] if len(attended) == 1 else torch.cat(attended)


def _one_row(
    query: Tensor, key: Tensor, value: Tensor, scale: float | None, window: int | None, dropout: float
) -> Tensor:
    q, k, v = (part.transpose(0, 1)[None] for part in (query, key, value))  # (1, heads, t, d)
    mask = None
    if window is not None:
        positions = torch.arange(len(query), device=query.device)
        distance = positions[:, None] - positions
        mask = (distance >= 0) & (distance < window)
    gqa = q.shape[1] != k.shape[1]
    out = F.scaled_dot_product_attention(
        q, k, v, mask, dropout_p=dropout, is_causal=mask is None, scale=scale, enable_gqa=gqa
    )
    return out[0].transpose(0, 1)


def use_varlen_attention(model: Any) -> None:
    """Make a transformers model attend by `attend` in each call with a PackedForward."""

    def attention(
        module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **given: Any
    ) -> tuple[Tensor, None]:
        packed = PackedForward.take(given)
        if packed is None:
            return sdpa_attention(module, query, key, value, attention_mask, **given)
        if unknown := {key for key, value in given.items() if value is not None} & NOT_COMPUTED:
            raise NotImplementedError(f"attention with {', '.join(sorted(unknown))}")
        if not getattr(module, "is_causal", True):
            raise NotImplementedError("attention that is not causal")
        q, k, v = (part[0].transpose(0, 1) for part in (query, key, value))
        scale, window, dropout = given.get("scaling"), given.get("sliding_window"), given.get("dropout", 0.0)
        return attend(q, k, v, packed.bounds, scale, window, dropout)[None], None

    use_attention(model, NAME, attention)
