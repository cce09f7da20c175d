"""Cross-entropy where it is due and nowhere else: the head is computed for supervised positions only, in chunks.

The (positions x vocabulary) logits never exist as a whole, forward or backward: each chunk's gradient is taken while
its logits are at hand, as in Liger Kernel (arXiv 2410.10989), so the head is multiplied twice a step, not three times.
A frozen head gets no weight gradient; rows trained beside it (the think tags) replace its columns in every chunk.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

CHUNK_BYTES = 64 * 2**20  # of float32 logits at once


def chunk_rows(vocabulary: int) -> int:
    """Positions whose float32 logits fit in CHUNK_BYTES."""
    return max(1, CHUNK_BYTES // (4 * vocabulary))


def supervised_cross_entropy(
    hidden: Tensor, weight: Tensor, targets: Tensor, rows: Tensor | None = None, row_ids: tuple[int, ...] = ()
) -> tuple[Tensor, Tensor]:
    """(sum of the losses, loss of each position), both float32; gradients flow through the sum only.

    hidden:  (N, D) final hidden states of the supervised positions
    weight:  (V, D) the head; its gradient is computed only if it requires one
    targets: (N,)   token ids
    rows:    (K, D) float32, trained in place of `weight[row_ids]`, or None
    """
    total, losses = _ChunkedCrossEntropy.apply(hidden, weight, targets, rows, row_ids)  # type: ignore[no-untyped-call]
    return total, losses


class _ChunkedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, rows: Tensor | None, row_ids: tuple[int, ...]
    ) -> tuple[Tensor, Tensor]:
        device = hidden.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
        need_hidden, need_weight, _, need_rows, _ = ctx.needs_input_grad
        ids = list(row_ids)
        losses = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
        grad_hidden = torch.empty_like(hidden) if need_hidden else None
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if need_weight else None
        grad_rows = torch.zeros_like(rows) if rows is not None and need_rows else None
        with torch.autocast(device, enabled=False):
            matrix = weight.to(dtype)
            for start in range(0, len(hidden), chunk_rows(len(weight))):
                part = slice(start, start + chunk_rows(len(weight)))
                h, target = hidden[part].to(dtype), targets[part]
                logits = F.linear(h, matrix).float()  # (c, V)
                if rows is not None:
                    logits[:, ids] = F.linear(h.float(), rows)
                normalizer = logits.logsumexp(-1)
                losses[part] = normalizer - logits.gather(1, target[:, None])[:, 0]
                if grad_hidden is None and grad_weight is None and grad_rows is None:
                    continue
                # d loss / d logits = softmax - one-hot
                slope = logits.sub_(normalizer[:, None]).exp_()
                slope.scatter_add_(1, target[:, None], slope.new_full((len(target), 1), -1.0))
                part_grad = torch.zeros_like(h, dtype=torch.float32)
                if rows is not None:
                    row_slope = slope[:, ids]
                    slope[:, ids] = 0.0  # the frozen columns that the rows stand in for
                    part_grad += row_slope @ rows
                    if grad_rows is not None:
                        grad_rows += row_slope.T @ h.float()
                slope = slope.to(dtype)
                if grad_hidden is not None:
                    grad_hidden[part] = (part_grad + (slope @ matrix)).to(hidden.dtype)
                if grad_weight is not None:
                    grad_weight += slope.T @ h
        ctx.save_for_backward(grad_hidden, grad_weight, grad_rows)
        ctx.dtypes = (hidden.dtype, weight.dtype, torch.float32)
        ctx.mark_non_differentiable(losses)
        return losses.sum(), losses

    @staticmethod
    def backward(ctx: Any, grad_total: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        # In float32: a gradient scaler's factor alone may not fit in half precision
        grad_hidden, grad_weight, grad_rows = (
            None if grad is None else (grad.float() * grad_total).to(dtype)
            for grad, dtype in zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        )
        return grad_hidden, grad_weight, None, grad_rows, None
