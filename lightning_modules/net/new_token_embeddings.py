"""Embeddings of new tokens: small trained tensors beside the frozen embedding matrix and output head.

`<think>` and `</think>` are 2 of 151,936 tokens. Training the matrix for them, or copying it in every forward pass as
peft does, costs 600 MB a step with Qwen1.5-1.8B. Here the output of the embedding layer is overwritten where an id is
new, and the columns of new tokens in the logits are replaced.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from lightning_modules.internals.torch_internals import has_values

NewTokenInit = Literal["subtokens", "mean", "random"]
SAMPLED = 4096  # embeddings from which the standard deviation is measured
APART = 0.01  # standard deviations of noise between new embeddings that start at the mean


class NewTokenEmbedding(nn.Module):
    """A frozen embedding layer with trained embeddings for new ids: (K, D) float32, whatever the base's dtype."""

    def __init__(self, base: nn.Embedding, ids: Sequence[int], initial: Tensor) -> None:
        super().__init__()
        self.base = base
        self.ids = tuple(ids)
        self.embeddings = nn.Parameter(initial.detach().float().clone())
        self.scale = output_scale(base)

    @property
    def weight(self) -> Tensor:
        """The base matrix; the new embeddings are not in it."""
        return self.base.weight

    def forward(self, input_ids: Tensor) -> Tensor:
        """(…) ids -> (…, D), in the dtype of the base."""
        embedded: Tensor = self.base(input_ids)
        for embedding, token_id in zip(self.embeddings, self.ids, strict=True):
            new = embedding.to(embedded.dtype)
            if self.scale != 1:
                new = new * self.scale
            embedded = torch.where((input_ids == token_id).unsqueeze(-1), new, embedded)
        return embedded


@torch.no_grad()
def output_scale(embedding: nn.Embedding) -> float:
    """Return the factor by which an embedding layer multiplies its matrix: 1, but in Gemma the root of the width."""
    if not has_values(embedding.weight):
        return 1.0  # a model without values, for `estimate`
    ones = torch.ones((), dtype=embedding.weight.dtype, device=embedding.weight.device).expand_as(embedding.weight)
    ids = torch.zeros(1, dtype=torch.long, device=embedding.weight.device)
    return float(functional_call(embedding, {"weight": ones}, (ids,))[0, 0])


class NewTokenHead(nn.Module):
    """A frozen output head with trained embeddings for new ids; a tied model shares them with its embedding layer."""

    def __init__(self, base: nn.Linear, ids: Sequence[int], embeddings: nn.Parameter) -> None:
        super().__init__()
        self.base = base
        self.ids = tuple(ids)
        self.embeddings = embeddings
        self.index: Tensor  # the ids on the device; a list would make the host wait for the device at each use
        self.register_buffer("index", torch.tensor(self.ids, device=embeddings.device), persistent=False)

    @property
    def weight(self) -> Tensor:
        """The base matrix; the new embeddings are not in it."""
        return self.base.weight

    def forward(self, hidden: Tensor) -> Tensor:
        """(…, D) -> (…, V) logits."""
        logits: Tensor = self.base(hidden)
        return logits.index_copy(-1, self.index, F.linear(hidden.float(), self.embeddings).to(logits.dtype))


def initial_embeddings(
    matrix: Tensor, pieces: Sequence[Sequence[int]], known: int, init: NewTokenInit = "subtokens"
) -> Tensor:
    """Return initial embeddings, (K, D) float32, for K new tokens; no two are equal.

    matrix: (V, D), of which the first `known` embeddings belong to tokens
    pieces: for each new token, the ids that spelled its text before
    init:   subtokens: the mean of the embeddings of the pieces. `<think>` and `</think>` share some pieces and differ
                       in others.
            mean:      the mean of all known embeddings (https://nlp.stanford.edu/~johnhew/vocab-expansion.html), plus
                       a little noise
            random:    drawn from a normal distribution with the mean and standard deviation of the known embeddings
    """
    matrix = matrix.detach()
    if init == "subtokens":
        return torch.stack([matrix[list(ids)].float().mean(0) for ids in pieces])
    mean = matrix[:known].mean(0, dtype=torch.float32)
    deviation = matrix[: known : max(1, known // SAMPLED)].float().std(0)
    noise = torch.randn(len(pieces), matrix.shape[1], device=matrix.device) * deviation
    return mean + noise * (APART if init == "mean" else 1.0)
