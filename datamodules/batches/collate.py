"""Rows -> Batch: the tensors of one micro-batch, and where in them a loss is due."""

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
    """Rows one after another in one sequence of T tokens, without padding; N of all positions have a supervised token
    next.

        input_ids     p p < t > a e p p < t e     two rows, of 7 and 5 tokens
        position_ids  0 1 2 3 4 5 6 0 1 2 3 4
        starts        0             7         12

    So what is computed is what the rows hold, whatever their lengths. Attention is causal and does not leave a row
    (lightning_modules/fused/varlen_attention.py). The places where a loss is due come as indices, made here, since
    finding them on a GPU would make the host wait.
    """

    input_ids: Tensor  # (1, T) int64
    position_ids: Tensor  # (1, T) int64, from 0 in each row
    starts: Tensor  # (rows + 1,) int32, where each row begins, and T
    lengths: list[int]  # the same on the host: tokens of each row
    predict_from: Tensor  # (N,) int64, index into the T positions; the token after it is the target
    targets: Tensor  # (N,) int64
    target_roles: Tensor  # (N,) int64, a Role
    step_tokens: int  # supervised tokens of the whole optimizer step, all its batches and ranks
    prompt_lengths: list[int]
    rows: list[int]  # index of each row in its split
    row_ids: list[str]  # and what its source calls it
    groups: list[str]

    def to(self, *args: Any, **kwargs: Any) -> "Batch":
        """From pinned memory without waiting: the host would wait for all that the GPU has yet to do."""
        return self._map(lambda tensor: tensor.to(*args, **kwargs, non_blocking=tensor.is_pinned()))

    def pin_memory(self) -> "Batch":
        return self._map(lambda tensor: tensor.pin_memory())

    def _map(self, change: Any) -> "Batch":
        tensors = {f.name: getattr(self, f.name) for f in fields(self) if isinstance(getattr(self, f.name), Tensor)}
        return replace(self, **{name: change(tensor) for name, tensor in tensors.items()})

    def token_ids(self) -> list[list[int]]:
        """The token ids of each row."""
        ids = self.input_ids[0].tolist()
        return [ids[start:end] for start, end in pairwise(self.starts.tolist())]


def collate(rows: Sequence[TokenExample], step_tokens: int, pad_id: int) -> Batch:
    """The Batch of these rows; without rows, one token with nothing supervised, which is `pad_id`."""
    lengths = [len(row.ids) for row in rows] or [1]
    starts = np.concatenate([[0], np.cumsum(lengths)])
    predict_from, targets, roles = [], [], []
    for start, row in zip(starts.tolist(), rows, strict=False):
        due = np.flatnonzero(row.roles[1:] != Role.PROMPT)  # the first token has nothing before it to predict it from
        predict_from.append(due + start)
        targets.append(row.ids[due + 1])
        roles.append(row.roles[due + 1])
    return Batch(
        input_ids=_long([row.ids for row in rows] or [np.array([pad_id])])[None],
        position_ids=_long([np.arange(length) for length in lengths])[None],
        starts=torch.from_numpy(starts.astype(np.int32)),
        lengths=lengths,
        predict_from=_long(predict_from),
        targets=_long(targets),
        target_roles=_long(roles),
        step_tokens=step_tokens,
        prompt_lengths=[int(np.argmax(row.roles != Role.PROMPT)) for row in rows],
        rows=[row.row for row in rows],
        row_ids=[row.row_id for row in rows],
        groups=[row.group for row in rows],
    )


def _long(arrays: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.concatenate([*arrays, np.zeros(0)]).astype(np.int64))
