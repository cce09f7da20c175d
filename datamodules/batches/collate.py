"""Examples -> Batch: the tensors of one micro-batch, and the positions that have a loss."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datamodules.prepare.token_dataset import TokenExample
from datamodules.text.segments import Role


@dataclass
class Batch:
    """Examples one after another in one sequence of T tokens, without padding.

        input_ids     p p < t > a e p p < t e     two examples, of 7 and 5 tokens
        position_ids  0 1 2 3 4 5 6 0 1 2 3 4
        starts        0             7         12

    The cost of a step therefore depends on the tokens of the examples alone. Attention is causal and stays within an
    example (lightning_modules/fused/varlen_attention.py). N of the T positions predict a supervised token. Their
    indices are computed here, on the host: to find them on a GPU the host would have to wait for it.
    """

    input_ids: Tensor  # (1, T) int64
    position_ids: Tensor  # (1, T) int64, from 0 in each example
    starts: Tensor  # (examples + 1,) int32, the first position of each example, and T
    lengths: list[int]  # tokens of each example, on the host
    predict_from: Tensor  # (N,) int64, index into the T positions; the token after it is the target
    targets: Tensor  # (N,) int64
    target_roles: Tensor  # (N,) int64, a Role
    step_tokens: int  # supervised tokens of the whole optimizer step, over all micro-batches and ranks
    prompt_lengths: list[int]  # tokens of each example before the first supervised one
    indices: list[int]  # of each example in its split
    row_ids: list[str]  # of the row of the data that each example was made from
    groups: list[str]

    def to(self, *args: Any, **kwargs: Any) -> "Batch":
        """As torch.Tensor.to. From pinned memory the copy is asynchronous, so the host does not wait for the GPU."""
        return self._map(lambda tensor: tensor.to(*args, **kwargs, non_blocking=tensor.is_pinned()))

    def pin_memory(self) -> "Batch":
        return self._map(lambda tensor: tensor.pin_memory())

    def _map(self, change: Any) -> "Batch":
        tensors = {f.name: getattr(self, f.name) for f in fields(self) if isinstance(getattr(self, f.name), Tensor)}
        return replace(self, **{name: change(tensor) for name, tensor in tensors.items()})

    def token_ids(self) -> list[list[int]]:
        """The token ids of each example."""
        ids = self.input_ids[0].tolist()
        return [ids[start:end] for start, end in pairwise(self.starts.tolist())]


def collate(examples: Sequence[TokenExample], step_tokens: int, pad_id: int) -> Batch:
    """The Batch of these examples; without examples a batch of one unsupervised token, `pad_id`."""
    lengths = [len(example.ids) for example in examples] or [1]
    starts = np.concatenate([[0], np.cumsum(lengths)])
    predict_from, targets, roles = [], [], []
    for start, example in zip(starts.tolist(), examples, strict=False):
        before = np.flatnonzero(example.roles[1:] != Role.PROMPT)  # no position predicts the first token
        predict_from.append(before + start)
        targets.append(example.ids[before + 1])
        roles.append(example.roles[before + 1])
    return Batch(
        input_ids=_long([example.ids for example in examples] or [np.array([pad_id])])[None],
        position_ids=_long([np.arange(length) for length in lengths])[None],
        starts=torch.from_numpy(starts.astype(np.int32)),
        lengths=lengths,
        predict_from=_long(predict_from),
        targets=_long(targets),
        target_roles=_long(roles),
        step_tokens=step_tokens,
        prompt_lengths=[int(np.argmax(example.roles != Role.PROMPT)) for example in examples],
        indices=[example.index for example in examples],
        row_ids=[example.row_id for example in examples],
        groups=[example.group for example in examples],
    )


def _long(arrays: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.concatenate([*arrays, np.zeros(0)]).astype(np.int64))
