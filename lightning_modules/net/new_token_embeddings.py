"""The rows of `<think>` and `</think>`: small trained tensors beside the frozen embedding and output head.

Two rows of 151,936 are new. Training the matrix for them, or copying it every forward as peft does, costs 600 MB a step
at Qwen1.5-1.8B. Here the embedding's output is overwritten where an id is new, and the head's columns are replaced.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

NewTokenInit = Literal["subtokens", "mean", "random"]
SAMPLED = 4096  # rows of the matrix from which the spread is measured
APART = 0.01  # of the spread, by which rows that start at the mean differ


class NewTokenEmbedding(nn.Module):
    """A frozen embedding with trained rows for some ids. `rows` is (K, D), float32 whatever the base is in."""

    def __init__(self, base: nn.Embedding, ids: Sequence[int], start: Tensor) -> None:
        super().__init__()
        self.base = base
        self.ids = tuple(ids)
        self.rows = nn.Parameter(start.detach().float().clone())

    @property
    def weight(self) -> Tensor:
        """The base matrix, in which the rows are not."""
        return self.base.weight

    def forward(self, input_ids: Tensor) -> Tensor:
        """(…) ids -> (…, D), in the dtype of the base."""
        embedded: Tensor = self.base(input_ids)
        for row, token_id in zip(self.rows, self.ids, strict=True):
            embedded = torch.where((input_ids == token_id).unsqueeze(-1), row.to(embedded.dtype), embedded)
        return embedded


class NewTokenHead(nn.Module):
    """A frozen output head with trained rows for some ids; where the model ties both, `rows` is the embedding's."""

    def __init__(self, base: nn.Linear, ids: Sequence[int], rows: nn.Parameter) -> None:
        super().__init__()
        self.base = base
        self.ids = tuple(ids)
        self.rows = rows
        self.index: Tensor  # of the ids; made from a list it would have the host wait for the device each time
        self.register_buffer("index", torch.tensor(self.ids, device=rows.device), persistent=False)

    @property
    def weight(self) -> Tensor:
        """The base matrix, in which the rows are not."""
        return self.base.weight

    def forward(self, hidden: Tensor) -> Tensor:
        """(…, D) -> (…, V) logits."""
        logits: Tensor = self.base(hidden)
        return logits.index_copy(-1, self.index, F.linear(hidden.float(), self.rows).to(logits.dtype))


def start_embeddings(
    matrix: Tensor, pieces: Sequence[Sequence[int]], known: int, init: NewTokenInit = "subtokens"
) -> Tensor:
    """(K, D) float32 start values for K new rows beside the first `known` rows of the matrix; no two are equal.

    subtokens: the mean of the rows of the pieces that the token's text had before. `<think>` and `</think>` share
               some of them, so they start near each other's meaning and apart.
    mean:      the mean of all known rows (https://nlp.stanford.edu/~johnhew/vocab-expansion.html), and a little noise.
    random:    drawn from a normal distribution with the mean and the spread of the known rows.
    """
    matrix = matrix.detach()
    if init == "subtokens":
        return torch.stack([matrix[list(ids)].float().mean(0) for ids in pieces])
    mean = matrix[:known].mean(0, dtype=torch.float32)
    spread = matrix[: known : max(1, known // SAMPLED)].float().std(0)
    noise = torch.randn(len(pieces), matrix.shape[1], device=matrix.device) * spread
    return mean + noise * (APART if init == "mean" else 1.0)
