"""Cross-entropy of supervised positions: the output head is computed only for them, in chunks.

The (positions x vocabulary) logits never exist as a whole. Each chunk's gradient is computed from its logits in the
forward pass, as in Liger Kernel (arXiv 2410.10989), so the head is multiplied twice a step, not three times. A frozen
head gets no weight gradient; trained embeddings of new tokens replace its columns in every chunk.
"""

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from datamodules.text.segments import Role
from errors import UserError
from lightning_modules.fused.elementwise import kernels_for
from lightning_modules.internals.torch_internals import autocast_dtype, first_derivative_only

CHUNK_SHARE = 64  # a chunk of logits takes at most this part of the device's memory
# Larger chunks are not faster (docs/speed.md). Key: device type, bytes per number
MOST_CHUNK_BYTES = {("cpu", 4): 2**28, ("cpu", 2): 2**26, ("cuda", 4): 2**30, ("cuda", 2): 2**30}
BLOCK_POSITIONS = 4  # their logits stay in a CPU's cache between two passes over them
SMALL = 1e-30  # below it float32 does not hold a probability precisely enough for its logarithm


@dataclass
class RoleWeights:
    """Weights of tokens in the training loss, by role. The sum is divided by the number of supervised tokens whatever
    the weights, so one role's weight does not change the other roles' gradients. Reported losses have no weights."""

    thought: float = 1.0
    """Weight of the tokens of thoughts. Default 1. Lower it if long thoughts dominate the answers."""
    tag: float = 1.0
    """Weight of `<think>` and `</think>`. Default 1. Raise it if the model rarely opens or closes a thought."""
    answer: float = 1.0
    """Weight of the tokens after the last thought. Default 1. Raise it if answers matter more than thoughts."""
    end: float = 1.0
    """Weight of the token that ends a response. Default 1. Raise it if the model does not stop."""

    def __post_init__(self) -> None:
        if not any(asdict(self).values()):
            raise UserError("model.role_weights", None, "are all 0, so nothing is learned", "give one above 0")

    def by_role(self) -> list[float]:
        """Return the weight of each Role, in their order; 0 for the prompt."""
        known = {Role.THOUGHT: self.thought, Role.ANSWER: self.answer, Role.END: self.end}
        known |= {Role.TAG_OPEN: self.tag, Role.TAG_CLOSE: self.tag}
        return [known.get(role, 0.0) for role in Role]


@dataclass(frozen=True)
class Head:
    """The output head: a matrix, and trained embeddings that stand in for some of its tokens."""

    weight: Tensor  # (V, D); has a gradient only if it is trained
    new_embeddings: Tensor | None = None  # (K, D) float32, in place of weight[new_token_ids]
    new_token_ids: Tensor | None = None  # (K,) int64; None if and only if new_embeddings is None


def positions_per_chunk(vocabulary: int, device: torch.device, width: int, memory: int | None = None) -> int:
    """Return how many positions have their logits in one chunk, `width` bytes per number.

    The device's whole memory decides, not its free memory: a repeated run must sum in the same order. `memory`: bytes
    of a device that is not present.
    """
    if memory is None and device.type == "cuda":
        memory = torch.cuda.get_device_properties(device).total_memory
    elif memory is None:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    most = MOST_CHUNK_BYTES.get((device.type, width), 2**28)
    return max(1, min(most, memory // CHUNK_SHARE) // (width * vocabulary))


def supervised_cross_entropy(
    hidden: Tensor, head: Head, targets: Tensor, token_weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return the weighted sum of the cross-entropy, (), and the plain cross-entropy of each position, (N,).

    Both are float32; only the sum has a gradient.

    hidden:        (N, D) final hidden states of the supervised positions
    targets:       (N,)   token ids
    token_weights: (N,)   float32; None: every token has weight 1
    """
    total, losses = _ChunkedCrossEntropy.apply(  # type: ignore[no-untyped-call]
        hidden, head.weight, head.new_embeddings, head, targets, token_weights
    )
    return total, losses


@torch.no_grad()
def target_ranks(hidden: Tensor, head: Head, targets: Tensor) -> Tensor:
    """Return the rank of each target in the vocabulary by its logit, (N,) int64; the likeliest token has rank 1."""
    ranks = torch.empty_like(targets)
    for chunk in _chunks(hidden, head):
        own = chunk.logits.gather(1, targets[chunk.part, None])
        ranks[chunk.part] = (chunk.logits > own).sum(-1) + 1
    return ranks


def cross_entropy_(logits: Tensor, targets: Tensor, weights: Tensor | None, with_gradient: bool) -> Tensor:
    """Return the cross-entropy of (N, V) logits, (N,) float32.

    With `with_gradient` the logits become the gradient of the weighted sum, in place. Without, they are undefined.
    """
    if fast := kernels_for(logits):
        computed: Tensor = fast.cross_entropy_(logits, targets, weights, with_gradient)
        return computed
    losses = torch.empty(len(logits), dtype=torch.float32, device=logits.device)
    scratch = torch.empty(BLOCK_POSITIONS, logits.shape[1], dtype=torch.float32, device=logits.device)
    for start in range(0, len(logits), BLOCK_POSITIONS):
        part = slice(start, start + BLOCK_POSITIONS)
        block, target = logits[part], targets[part, None]
        probs = torch.softmax(block, -1, dtype=torch.float32, out=scratch[: len(block)])
        likelihood = probs.gather(1, target)[:, 0]
        losses[part] = -likelihood.log()
        if float(likelihood.min()) < SMALL:
            losses[part] = block.float().logsumexp(-1) - block.gather(1, target)[:, 0].float()
        if not with_gradient:
            continue
        # The gradient of the loss by the logits: weight x (softmax - one-hot)
        probs.scatter_add_(1, target, probs.new_full(target.shape, -1.0))
        if weights is not None:
            probs *= weights[part, None]
        block.copy_(probs)
    return losses


@dataclass(frozen=True)
class _Chunk:
    """Consecutive supervised positions. The caller may overwrite the logits until the next chunk."""

    part: slice
    hidden: Tensor  # (c, D), in the dtype of the product
    matrix: Tensor  # (V, D), the head's, in the same dtype
    logits: Tensor  # (c, V)


def _chunks(hidden: Tensor, head: Head) -> Iterator[_Chunk]:
    weight, device = head.weight, hidden.device.type
    dtype = autocast_dtype(device) or weight.dtype
    with torch.autocast(device, enabled=False):
        matrix = weight.to(dtype)
        size = min(positions_per_chunk(len(weight), hidden.device, dtype.itemsize), max(1, len(hidden)))
        buffer = torch.empty(size, len(weight), dtype=dtype, device=hidden.device) if len(hidden) else hidden
        for start in range(0, len(hidden), size):
            part = slice(start, start + size)
            h = hidden[part].to(dtype)
            logits = torch.mm(h, matrix.T, out=buffer[: len(h)])
            if head.new_embeddings is not None:
                assert head.new_token_ids is not None
                logits.index_copy_(1, head.new_token_ids, F.linear(h.float(), head.new_embeddings).to(dtype))
            yield _Chunk(part, h, matrix, logits)


class _ChunkedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,  # head.weight and head.new_embeddings: autograd needs them as arguments of their own
        new_embeddings: Tensor | None,
        head: Head,
        targets: Tensor,
        token_weights: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        need_hidden, need_weight, need_new, *_ = ctx.needs_input_grad
        with_gradient = need_hidden or need_weight or need_new
        losses = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
        grad_hidden = torch.empty_like(hidden) if need_hidden else None
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if need_weight else None
        grad_new = torch.zeros_like(new_embeddings) if new_embeddings is not None and need_new else None
        for chunk in _chunks(hidden, head):
            part, logits = chunk.part, chunk.logits
            weights = None if token_weights is None else token_weights[part]
            losses[part] = cross_entropy_(logits, targets[part], weights, with_gradient)
            if not with_gradient:
                continue
            new_slope = None  # the gradient of the new tokens' logits
            if new_embeddings is not None:
                assert head.new_token_ids is not None
                new_slope = logits.index_select(1, head.new_token_ids).float()
                logits.index_fill_(1, head.new_token_ids, 0.0)  # frozen columns that take no part in the loss
                if grad_new is not None:
                    grad_new.addmm_(new_slope.T, chunk.hidden.float())
            if grad_hidden is not None:
                grad = logits @ chunk.matrix
                if new_slope is not None and new_embeddings is not None:
                    grad = torch.addmm(grad.float(), new_slope, new_embeddings)
                grad_hidden[part] = grad
            if grad_weight is not None:
                grad_weight += logits.T @ chunk.hidden
        ctx.save_for_backward(grad_hidden, grad_weight, grad_new)
        ctx.dtypes = (hidden.dtype, weight.dtype, torch.float32)
        ctx.mark_non_differentiable(losses)
        weighted = losses if token_weights is None else losses * token_weights
        return weighted.sum(), losses

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, grad_total: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        # In float32: a gradient scaler's factor alone may not fit in half precision
        grad_hidden, grad_weight, grad_new = (
            None if grad is None else (grad.float() * grad_total).to(dtype)
            for grad, dtype in zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        )
        return grad_hidden, grad_weight, grad_new, None, None, None
