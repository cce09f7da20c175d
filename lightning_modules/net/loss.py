"""Cross-entropy where it is due and nowhere else: the head is computed for supervised positions only, in chunks.

The (positions x vocabulary) logits never exist as a whole, forward or backward: each chunk's gradient is taken while
its logits are at hand, as in Liger Kernel (arXiv 2410.10989), so the head is multiplied twice a step, not three times.
A frozen head gets no weight gradient; rows trained beside it (the think tags) replace its columns in every chunk.
"""

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from datamodules.text.segments import Role
from errors import UserError
from lightning_modules.fused.elementwise import on_gpu

CHUNK_SHARE = 64  # of the device's memory, one part may hold logits
# Larger chunks are not faster (docs/speed.md). By the device and the bytes of a number
MOST_CHUNK_BYTES = {("cpu", 4): 2**28, ("cpu", 2): 2**26, ("cuda", 4): 2**30, ("cuda", 2): 2**30}
BLOCK_ROWS = 4  # logits of so many positions stay in a CPU's cache from one step over them to the next
SMALL = 1e-30  # a probability of which float32 does not tell the logarithm to its full precision


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


def chunk_rows(vocabulary: int, device: torch.device, width: int, memory: int | None = None) -> int:
    """Positions of which a chunk holds the logits, `width` bytes each. Of the memory that a device has, not of what is
    free at the moment: a run must sum in the same order when it is repeated. `memory`: of a device that is not here."""
    if memory is None and device.type == "cuda":
        memory = torch.cuda.get_device_properties(device).total_memory
    elif memory is None:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    most = MOST_CHUNK_BYTES.get((device.type, width), 2**28)
    return max(1, min(most, memory // CHUNK_SHARE) // (width * vocabulary))


def supervised_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    rows: Tensor | None = None,
    row_ids: Tensor | None = None,
    token_weights: Tensor | None = None,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """(what is minimized, summed; plain cross-entropy of each position), both float32; only the sum has a gradient.

    hidden:  (N, D) final hidden states of the supervised positions
    weight:  (V, D) the head; its gradient is computed only if it requires one
    targets: (N,)   token ids
    rows:    (K, D) float32, trained in place of `weight[row_ids]`, or None
    row_ids: (K,)   int64
    token_weights: (N,) float32, or None where every token counts 1
    """
    total, losses = _ChunkedCrossEntropy.apply(  # type: ignore[no-untyped-call]
        hidden, weight, targets, rows, row_ids, token_weights, label_smoothing, z_loss
    )
    return total, losses


@torch.no_grad()
def target_ranks(
    hidden: Tensor, weight: Tensor, targets: Tensor, rows: Tensor | None = None, row_ids: Tensor | None = None
) -> Tensor:
    """(N,) int64: the place of each target among the vocabulary by its logit; 1 is the likeliest token."""
    ranks = torch.empty_like(targets)
    for part, _, _, logits in _chunks(hidden, weight, rows, row_ids):
        own = logits.gather(1, targets[part, None])
        ranks[part] = (logits > own).sum(-1) + 1
    return ranks


def cross_entropy_(
    logits: Tensor, targets: Tensor, weights: Tensor | None, label_smoothing: float, z_loss: float, slope: bool
) -> tuple[Tensor, Tensor]:
    """(N,) float32 cross-entropy of (N, V) logits, and (N,) what is minimized. With `slope`, the logits become the
    gradient of the latter, in place; without, they are lost."""
    if fast := on_gpu(logits):
        both: tuple[Tensor, Tensor] = fast.cross_entropy_(logits, targets, weights, label_smoothing, z_loss, slope)
        return both
    losses = torch.empty(len(logits), dtype=torch.float32, device=logits.device)
    minimized = torch.empty_like(losses)
    scratch = torch.empty(BLOCK_ROWS, logits.shape[1], dtype=torch.float32, device=logits.device)
    for start in range(0, len(logits), BLOCK_ROWS):
        part = slice(start, start + BLOCK_ROWS)
        block, target = logits[part], targets[part, None]
        probs = torch.softmax(block, -1, dtype=torch.float32, out=scratch[: len(block)])
        own, likelihood = block.gather(1, target)[:, 0].float(), probs.gather(1, target)[:, 0]
        losses[part] = -likelihood.log()
        if float(likelihood.min()) < SMALL:
            losses[part] = block.float().logsumexp(-1) - own
        normalizer = own + losses[part]
        minimized[part] = losses[part]
        if label_smoothing:
            even = normalizer - block.mean(-1, dtype=torch.float32)
            minimized[part] = (1 - label_smoothing) * losses[part] + label_smoothing * even
        if z_loss:
            minimized[part] += z_loss * normalizer.square()
        if weights is not None:
            minimized[part] *= weights[part]
        if not slope:
            continue
        # d minimized / d logits = weight x ((1 + 2 z logsumexp) softmax - smoothed one-hot)
        if z_loss:
            probs *= 1 + 2 * z_loss * normalizer[:, None]
        if label_smoothing:
            probs -= label_smoothing / logits.shape[1]
        probs.scatter_add_(1, target, probs.new_full(target.shape, label_smoothing - 1.0))
        if weights is not None:
            probs *= weights[part, None]
        block.copy_(probs)
    return losses, minimized


def _chunks(
    hidden: Tensor, weight: Tensor, rows: Tensor | None, row_ids: Tensor | None
) -> Iterator[tuple[slice, Tensor, Tensor, Tensor]]:
    """Which positions; their (c, D) hidden states, the head, and (c, V) logits, in the dtype of the product. The logits
    are the caller's to change until the next chunk."""
    device = hidden.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
    with torch.autocast(device, enabled=False):
        matrix = weight.to(dtype)
        size = min(chunk_rows(len(weight), hidden.device, dtype.itemsize), max(1, len(hidden)))
        buffer = torch.empty(size, len(weight), dtype=dtype, device=hidden.device) if len(hidden) else hidden
        for start in range(0, len(hidden), size):
            part = slice(start, start + size)
            h = hidden[part].to(dtype)
            logits = torch.mm(h, matrix.T, out=buffer[: len(h)])
            if rows is not None and row_ids is not None:
                logits.index_copy_(1, row_ids, F.linear(h.float(), rows).to(dtype))
            yield part, h, matrix, logits


class _ChunkedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        targets: Tensor,
        rows: Tensor | None,
        row_ids: Tensor | None,
        token_weights: Tensor | None,
        label_smoothing: float,
        z_loss: float,
    ) -> tuple[Tensor, Tensor]:
        need_hidden, need_weight, _, need_rows, *_ = ctx.needs_input_grad
        slope = need_hidden or need_weight or need_rows
        losses = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
        minimized = torch.empty_like(losses)
        grad_hidden = torch.empty_like(hidden) if need_hidden else None
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if need_weight else None
        grad_rows = torch.zeros_like(rows) if rows is not None and need_rows else None
        for part, h, matrix, logits in _chunks(hidden, weight, rows, row_ids):
            weights = None if token_weights is None else token_weights[part]
            losses[part], minimized[part] = cross_entropy_(
                logits, targets[part], weights, label_smoothing, z_loss, slope
            )
            if not slope:
                continue
            row_slope = None
            if rows is not None and row_ids is not None:
                row_slope = logits.index_select(1, row_ids).float()
                logits.index_fill_(1, row_ids, 0.0)  # the frozen columns that the rows stand in for
                if grad_rows is not None:
                    grad_rows.addmm_(row_slope.T, h.float())
            if grad_hidden is not None:
                grad = logits @ matrix
                grad_hidden[part] = (
                    grad if row_slope is None or rows is None else torch.addmm(grad.float(), row_slope, rows)
                )
            if grad_weight is not None:
                grad_weight += logits.T @ h
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
