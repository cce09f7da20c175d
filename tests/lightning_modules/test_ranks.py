from pathlib import Path

import pytest
import torch.multiprocessing as mp

from lightning_modules.ranks import from_all_ranks


def _gather(rank: int, port: int, folder: Path) -> None:
    import torch.distributed as dist

    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    try:
        (folder / f"{rank}").write_text(str(from_all_ranks([(rank, k) for k in range(rank + 1)])))
    finally:
        dist.destroy_process_group()


def test_every_rank_gets_the_items_of_all_in_the_order_of_the_ranks(tmp_path: Path) -> None:
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(_gather, args=(port, tmp_path), nprocs=2)  # type: ignore[attr-defined, no-untyped-call]
    for rank in (0, 1):
        assert (tmp_path / f"{rank}").read_text() == "[(0, 0), (1, 0), (1, 1)]"


@pytest.mark.parametrize("items", [[], [1, 2]])
def test_one_process_gets_its_own_items(items: list[int]) -> None:
    assert from_all_ranks(items) == items
