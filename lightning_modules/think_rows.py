"""The rows of `<think>` and `</think>`: small trained tensors beside the frozen embedding and output head.

Two rows of 151,936 are new. Training the matrix for them, or copying it every forward as peft does, costs 600 MB a step
at Qwen1.5-1.8B. Here the embedding's output is overwritten where an id is new, and the head's columns are replaced.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ThinkEmbedding(nn.Module):
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


class ThinkHead(nn.Module):
    """A frozen output head with trained rows for some ids; where the model ties both, `rows` is the embedding's."""

    def __init__(self, base: nn.Linear, ids: Sequence[int], rows: nn.Parameter) -> None:
        super().__init__()
        self.base = base
        self.ids = tuple(ids)
        self.rows = rows

    @property
    def weight(self) -> Tensor:
        """The base matrix, in which the rows are not."""
        return self.base.weight

    def forward(self, hidden: Tensor) -> Tensor:
        """(…, D) -> (…, V) logits."""
        logits: Tensor = self.base(hidden)
        logits[..., list(self.ids)] = F.linear(hidden.float(), self.rows).to(logits.dtype)
        return logits


def start_rows(matrix: Tensor, pieces: Sequence[Sequence[int]]) -> Tensor:
    """(K, D) float32: each new row is the mean of the rows of the pieces that its text had before.

    `<think>` and `</think>` share pieces but not all, so they start near each other's meaning and apart.
    """
    return torch.stack([matrix[list(ids)].detach().float().mean(0) for ids in pieces])
