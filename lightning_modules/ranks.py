"""Lists that every rank has a part of."""

from typing import TypeVar

import torch

Item = TypeVar("Item")


def from_all_ranks(mine: list[Item]) -> list[Item]:
    """Return the items of all ranks, in the order of the ranks, on every rank. Every rank must call it."""
    if not _together():
        return mine
    gathered: list[list[Item]] = [[] for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather_object(gathered, mine)
    return [item for part in gathered for item in part]


def share_of_rank(items: list[Item]) -> list[Item]:
    """Return the part of a list, the same on every rank, that this rank has to do."""
    return items[torch.distributed.get_rank() :: torch.distributed.get_world_size()] if _together() else items


def _together() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()
