"""Cross-entropy where it is due and nowhere else: the head is computed for supervised positions only, in chunks.

The (positions x vocabulary) logits never exist as a whole, forward or backward: each chunk's gradient is taken while
its logits are at hand, as in Liger Kernel (arXiv 2410.10989), so the head is multiplied twice a step, not three times.
A frozen head gets no weight gradient; rows trained beside it (the think tags) replace its columns in every chunk.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from datamodules.render import Role
from errors import UserError

CHUNK_BYTES = 64 * 2**20  # of float32 logits at once


@dataclass
class RoleWeights:
    """What a token counts in training, by its role. The sum is divided by the number of supervised tokens, whatever
    they weigh: the weight of one role changes nothing for the others. Losses are reported without weights."""

    thought: float = 1.0
    """Text of the reasoning."""
    tag: float = 1.0
    """`<think>` and `</think>`."""
    answer: float = 1.0
    """Text after the reasoning."""
    end: float = 1.0
    """The end of the response: whether the model learns to stop."""

    def by_role(self) -> list[float]:
        """The weight of each Role, in their order."""
        known = {Role.THOUGHT: self.thought, Role.ANSWER: self.answer, Role.END: self.end}
        known |= {Role.TAG_OPEN: self.tag, Role.TAG_CLOSE: self.tag}
        return [known.get(role, 0.0) for role in Role]


@dataclass
class LossSettings:
    """What is minimized in training: for a token with logits x and target y, `weight x (cross-entropy + z_loss x
    logsumexp(x)²)`. Validation reports plain cross-entropy whatever is set here."""

    weights: RoleWeights = field(default_factory=RoleWeights)
    """What a token counts, by its role."""
    label_smoothing: float = 0.0
    """Share of the target's probability that is spread over the vocabulary (arXiv 1512.00567)."""
    z_loss: float = 0.0
    """Weight of logsumexp², which keeps logits from drifting in half precision (arXiv 2204.02311; 1e-4 there)."""

    def __post_init__(self) -> None:
        weights = asdict(self.weights)
        for name, value in weights.items():
            if value < 0:
                raise UserError(f"model.loss.weights.{name}", value, "is below 0", "give 0 or more; 1 is usual")
        if not any(weights.values()):
            raise UserError("model.loss.weights", None, "are all 0, so nothing would be learned", "give one above 0")
        if not 0 <= self.label_smoothing < 1:
            fix = "give 0.0 for none, 0.1 at most in practice"
            raise UserError("model.loss.label_smoothing", self.label_smoothing, "is not a share below 1", fix)
        if self.z_loss < 0:
            raise UserError("model.loss.z_loss", self.z_loss, "is below 0", "give 0.0 for none, or 1e-4")


def chunk_rows(vocabulary: int) -> int:
    """Positions whose float32 logits fit in CHUNK_BYTES."""
    return max(1, CHUNK_BYTES // (4 * vocabulary))


def supervised_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    rows: Tensor | None = None,
    row_ids: tuple[int, ...] = (),
    token_weights: Tensor | None = None,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """(what is minimized, summed; plain cross-entropy of each position), both float32; only the sum has a gradient.

    hidden:  (N, D) final hidden states of the supervised positions
    weight:  (V, D) the head; its gradient is computed only if it requires one
    targets: (N,)   token ids
    rows:    (K, D) float32, trained in place of `weight[row_ids]`, or None
    token_weights: (N,) float32, or None where every token counts 1
    """
    total, losses = _ChunkedCrossEntropy.apply(  # type: ignore[no-untyped-call]
        hidden, weight, targets, rows, row_ids, token_weights, label_smoothing, z_loss
    )
    return total, losses


@torch.no_grad()
def target_ranks(
    hidden: Tensor, weight: Tensor, targets: Tensor, rows: Tensor | None = None, row_ids: tuple[int, ...] = ()
) -> Tensor:
    """(N,) int64: the place of each target among the vocabulary by its logit; 1 is the likeliest token."""
    ranks = torch.empty_like(targets)
    for part, _, _, logits in _chunks(hidden, weight, rows, row_ids):
        own = logits.gather(1, targets[part, None])
        ranks[part] = (logits > own).sum(-1) + 1
    return ranks


def _chunks(
    hidden: Tensor, weight: Tensor, rows: Tensor | None, row_ids: tuple[int, ...]
) -> Iterator[tuple[slice, Tensor, Tensor, Tensor]]:
    """Which positions; their (c, D) hidden states and the head in the dtype of the product; (c, V) float32 logits."""
    device = hidden.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
    with torch.autocast(device, enabled=False):
        matrix, size = weight.to(dtype), chunk_rows(len(weight))
        for start in range(0, len(hidden), size):
            part = slice(start, start + size)
            h = hidden[part].to(dtype)
            logits = F.linear(h, matrix).float()
            if rows is not None:
                logits[:, list(row_ids)] = F.linear(h.float(), rows)
            yield part, h, matrix, logits


class _ChunkedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        targets: Tensor,
        rows: Tensor | None,
        row_ids: tuple[int, ...],
        token_weights: Tensor | None,
        label_smoothing: float,
        z_loss: float,
    ) -> tuple[Tensor, Tensor]:
        need_hidden, need_weight, _, need_rows, *_ = ctx.needs_input_grad
        ids = list(row_ids)
        losses = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
        minimized = torch.empty_like(losses)
        grad_hidden = torch.empty_like(hidden) if need_hidden else None
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if need_weight else None
        grad_rows = torch.zeros_like(rows) if rows is not None and need_rows else None
        for part, h, matrix, logits in _chunks(hidden, weight, rows, row_ids):
            target = targets[part, None]
            normalizer = logits.logsumexp(-1)
            losses[part] = normalizer - logits.gather(1, target)[:, 0]
            minimized[part] = losses[part]
            if label_smoothing:
                even = normalizer - logits.mean(-1)
                minimized[part] = (1 - label_smoothing) * losses[part] + label_smoothing * even
            if z_loss:
                minimized[part] += z_loss * normalizer.square()
            if token_weights is not None:
                minimized[part] *= token_weights[part]
            if grad_hidden is None and grad_weight is None and grad_rows is None:
                continue
            # d minimized / d logits = weight x ((1 + 2 z logsumexp) softmax - smoothed one-hot)
            slope = logits.sub_(normalizer[:, None]).exp_()
            if z_loss:
                slope *= 1 + 2 * z_loss * normalizer[:, None]
            if label_smoothing:
                slope -= label_smoothing / len(weight)
            slope.scatter_add_(1, target, slope.new_full(target.shape, label_smoothing - 1.0))
            if token_weights is not None:
                slope *= token_weights[part, None]
            part_grad = torch.zeros_like(h, dtype=torch.float32)
            if rows is not None:
                row_slope = slope[:, ids]
                slope[:, ids] = 0.0  # the frozen columns that the rows stand in for
                part_grad += row_slope @ rows
                if grad_rows is not None:
                    grad_rows += row_slope.T @ h.float()
            slope = slope.to(h.dtype)
            if grad_hidden is not None:
                grad_hidden[part] = (part_grad + (slope @ matrix)).to(hidden.dtype)
            if grad_weight is not None:
                grad_weight += slope.T @ h
        ctx.save_for_backward(grad_hidden, grad_weight, grad_rows)
        ctx.dtypes = (hidden.dtype, weight.dtype, torch.float32)
        ctx.mark_non_differentiable(losses)
        return minimized.sum(), losses

    @staticmethod
    def backward(ctx: Any, grad_total: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        # In float32: a gradient scaler's factor alone may not fit in half precision
        grad_hidden, grad_weight, grad_rows = (
            None if grad is None else (grad.float() * grad_total).to(dtype)
            for grad, dtype in zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        )
        return grad_hidden, grad_weight, None, grad_rows, None, None, None, None
