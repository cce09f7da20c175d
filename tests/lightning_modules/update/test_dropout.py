import torch

from lightning_modules.update.dropout import seed_dropout


def test_dropout_differs_between_ranks_and_batches_but_not_between_runs() -> None:
    """Ranks with equal dropout would average less noise than the batch size promises."""

    def drawn(batches: int, rank: int) -> tuple[float, ...]:
        seed_dropout(1, batches, rank)
        return tuple(torch.rand(3).tolist())

    assert drawn(5, 0) == drawn(5, 0)
    assert len({drawn(batches, rank) for rank in (0, 1) for batches in (5, 6)}) == 4
