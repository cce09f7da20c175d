"""Rows -> Batch: the tensors of one micro-batch, and where in them a loss is due."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datamodules.render import Role
from datamodules.token_rows import TokenRow


@dataclass
class Batch:
    """B rows padded on the right to T tokens; N of all positions have a supervised token next.

    There is no attention mask: attention is causal and padding is on the right, so no real position sees padding. The
    places where a loss is due come as indices, made here, since finding them on a GPU would make the host wait.
    """

    input_ids: Tensor  # (B, T) int64
    predict_from: Tensor  # (N,) int64, index into the B * T positions; the token after it is the target
    targets: Tensor  # (N,) int64
    target_roles: Tensor  # (N,) int64, a Role
    step_tokens: int  # supervised tokens of the whole optimizer step, all its batches and ranks
    prompt_lengths: list[int]
    rows: list[int]  # index of each row in its split
    row_ids: list[str]  # and what its source calls it
    groups: list[str]

    def to(self, *args: Any, **kwargs: Any) -> "Batch":
        return self._map(lambda tensor: tensor.to(*args, **kwargs))

    def pin_memory(self) -> "Batch":
        return self._map(lambda tensor: tensor.pin_memory())

    def _map(self, change: Any) -> "Batch":
        tensors = {f.name: getattr(self, f.name) for f in fields(self) if isinstance(getattr(self, f.name), Tensor)}
        return replace(self, **{name: change(tensor) for name, tensor in tensors.items()})


def collate(rows: Sequence[TokenRow], step_tokens: int, pad_id: int) -> Batch:
    """The Batch of these rows; without rows, one row of padding with nothing supervised.

    Which id pads does not matter to the result: padded positions are neither attended to nor supervised.
    """
    width = max((len(row.ids) for row in rows), default=1)
    input_ids = np.full((max(len(rows), 1), width), pad_id, dtype=np.int64)
    predict_from, targets, roles = [], [], []
    for k, row in enumerate(rows):
        input_ids[k, : len(row.ids)] = row.ids
        due = np.flatnonzero(row.roles[1:] != Role.PROMPT)  # the first token has nothing before it to predict it from
        predict_from.append(due + k * width)
        targets.append(row.ids[due + 1])
        roles.append(row.roles[due + 1])
    return Batch(
        input_ids=torch.from_numpy(input_ids),
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
