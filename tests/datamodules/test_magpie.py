from types import SimpleNamespace
from typing import Any

import pytest
from torch.utils.data import DataLoader

from datamodules.magpie import MagpieDataModule, PlanLoader
from errors import UserError


def data(tmp_path: Any, world_size: int = 1, rank: int = 0, done: int = 0, **settings: Any) -> MagpieDataModule:
    """A data module with a trainer that stands after `done` batches."""
    few: dict[str, Any] = {"train_rows": 40, "val_rows": 10, "num_workers": 0, "cache_dir": str(tmp_path)}
    module = MagpieDataModule(**few | settings)
    progress = SimpleNamespace(total=SimpleNamespace(processed=done))
    module.trainer = SimpleNamespace(  # type: ignore[assignment]
        state=SimpleNamespace(fn=SimpleNamespace(value="fit")),
        accumulate_grad_batches=2, world_size=world_size, global_rank=rank, limit_train_batches=1.0,
        fit_loop=SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=progress)),
    )  # fmt: skip
    module.setup("fit")
    return module


def rows(loader: PlanLoader) -> list[list[int]]:
    return [batch.rows for batch in loader]


def test_an_epoch_holds_every_row_once_over_all_ranks(tmp_path: Any) -> None:
    ranks = [data(tmp_path, world_size=2, rank=rank).train_dataloader() for rank in (0, 1)]
    assert sorted(row for loader in ranks for batch in rows(loader) for row in batch) == list(range(40))
    assert len(ranks[0]) == len(ranks[1]) == 6  # 3 steps of 4 x 2 x 2 rows, 2 batches each


@pytest.mark.parametrize("workers", [0, 2])
def test_the_loader_goes_on_where_training_stands(tmp_path: Any, workers: int) -> None:
    first, second = (rows(data(tmp_path, done=done).train_dataloader()) for done in (0, 10))
    assert len(first) == len(second) == 10
    assert first != second
    for done, rest in [(3, first[3:]), (9, first[9:]), (10, second), (14, second[4:])]:
        assert rows(data(tmp_path, done=done, num_workers=workers).train_dataloader()) == rest


def test_a_checkpoint_of_other_epochs_is_refused(tmp_path: Any) -> None:
    state = data(tmp_path).train_dataloader().state_dict()
    data(tmp_path).train_dataloader().load_state_dict(state)
    with pytest.raises(UserError, match=r"saved in epochs of 10 batches, and here they have 20"):
        data(tmp_path, batch_size=2).train_dataloader().load_state_dict(state)


def test_evaluation_takes_rows_in_order_with_or_without_workers(tmp_path: Any) -> None:
    for workers in (0, 2):
        loader: DataLoader[Any] = data(tmp_path, val_batch_size=4, num_workers=workers).val_dataloader()
        assert [batch.rows for batch in loader] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_fewer_rows_than_asked_for_are_used_and_said(tmp_path: Any, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "few.jsonl").write_text("".join(f'{{"instruction": "Ask {i}", "response": "a"}}\n' for i in range(50)))
    with caplog.at_level("INFO", logger="thinkwright"):
        module = data(tmp_path, source=str(tmp_path / "few.jsonl"), train_rows=100, val_rows=None, held_out=0.3)
    assert 20 < len(module.splits["train"]) < 50
    assert "data.train_rows: 100 asked for" in caplog.text
    assert "left out: none" in caplog.text
