"""Lists that every rank has a part of."""

from typing import TypeVar

import torch

Item = TypeVar("Item")


def from_all_ranks(mine: list[Item]) -> list[Item]:
    """Return the items of all ranks, in the order of the ranks, on every rank. Every rank must call it."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return mine
    gathered: list[list[Item]] = [[] for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather_object(gathered, mine)
    return [item for part in gathered for item in part]
