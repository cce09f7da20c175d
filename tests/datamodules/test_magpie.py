from types import SimpleNamespace
from typing import Any

import pytest

from datamodules.batches.loader import PlanLoader
from datamodules.layouts.columns import Columns
from datamodules.magpie import MagpieDataModule
from datamodules.prepare.mix import MixedSource
from datamodules.text.steps import StepSettings
from datamodules.text.tags import Tags
from errors import UserError


def data(tmp_path: Any, world_size: int = 1, rank: int = 0, done: int = 0, **settings: Any) -> MagpieDataModule:
    """A data module with a trainer after `done` batches."""
    few: dict[str, Any] = {"train_rows": 40, "val_rows": 10, "num_workers": 0, "cache_dir": str(tmp_path)}
    module = MagpieDataModule(**few | settings)
    module.batches_done = lambda: done
    module.trainer = SimpleNamespace(  # type: ignore[assignment]
        state=SimpleNamespace(fn=SimpleNamespace(value="fit")),
        accumulate_grad_batches=2, world_size=world_size, global_rank=rank, limit_train_batches=1.0,
        strategy=SimpleNamespace(root_device=SimpleNamespace(type="cpu")), overfit_batches=0.0, limit_val_batches=1.0,
        fast_dev_run=False, val_check_interval=1.0, check_val_every_n_epoch=1, log_every_n_steps=1, callbacks=[],
    )  # fmt: skip
    module.setup("fit")
    return module


def rows(loader: PlanLoader) -> list[list[int]]:
    return [batch.indices for batch in loader]


def test_an_epoch_holds_every_row_once_over_all_ranks(tmp_path: Any) -> None:
    ranks = [data(tmp_path, world_size=2, rank=rank).train_dataloader() for rank in (0, 1)]
    assert sorted(row for loader in ranks for batch in rows(loader) for row in batch) == list(range(40))
    assert len(ranks[0]) == len(ranks[1]) == 6  # 3 steps of 4 x 2 x 2 rows, 2 batches each


@pytest.mark.parametrize("packing", ["none", "packed"])
@pytest.mark.parametrize("workers", [0, 2])
def test_the_loader_continues_at_the_position_of_training(tmp_path: Any, workers: int, packing: str) -> None:
    settings: dict[str, Any] = {"packing": packing}
    first, second = (rows(data(tmp_path, done=done, **settings).train_dataloader()) for done in (0, 10))
    assert len(first) == len(second) == 10
    assert first != second
    for done, rest in [(3, first[3:]), (9, first[9:]), (10, second), (14, second[4:])]:
        assert rows(data(tmp_path, done=done, num_workers=workers, **settings).train_dataloader()) == rest


def test_the_first_validation_of_a_fit_refuses_an_impossible_plan_of_the_epochs(tmp_path: Any) -> None:
    module = data(tmp_path, packing="packed")
    module.tokens_per_step, module.epochs, module._planned_for = 10, None, None
    module.setup("validate")  # the validate command trains nothing
    assert module.epochs is None
    module.trains = True
    with pytest.raises(UserError, match=r"data\.tokens_per_step: '10' is less than one pack"):
        module.setup("validate")


def test_the_plan_of_the_epochs_is_printed_once(tmp_path: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="thinkwright"):
        module = data(tmp_path, packing="packed")
        module.setup("fit")
    assert caplog.text.count("data: packed, 40 rows in ") == 1
    assert module.epochs is not None and module.epochs.line() in caplog.text


def test_evaluation_takes_rows_in_order_with_and_without_workers(tmp_path: Any) -> None:
    for workers in (0, 2):
        loader = data(tmp_path, val_batch_size=4, num_workers=workers).val_dataloader()
        assert [batch.indices for batch in loader] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_a_shortage_of_rows_is_printed_and_the_rows_are_used(tmp_path: Any, caplog: pytest.LogCaptureFixture) -> None:
    row = '{{"instruction": "Ask {}", "response": "<think>a</think>b"}}\n'
    (tmp_path / "few.jsonl").write_text("".join(map(row.format, range(50))))
    with caplog.at_level("INFO", logger="thinkwright"):
        module = data(tmp_path, source=str(tmp_path / "few.jsonl"), train_rows=100, val_rows=None, heldout_ratio=0.3)
    assert 20 < len(module.splits["train"]) < 50
    assert "data.train_rows: 100 requested" in caplog.text
    assert "dropped 0" in caplog.text


def test_each_source_of_a_mix_has_its_own_settings(tmp_path: Any) -> None:
    (tmp_path / "long.jsonl").write_text(
        "".join(f'{{"instruction": "Ask {i}", "response": "<think>a</think>b"}}\n' for i in range(90))
    )
    (tmp_path / "short.jsonl").write_text("".join(f'{{"q": "Say {i}", "a": "c"}}\n' for i in range(400)))
    long = MixedSource(str(tmp_path / "long.jsonl"), weight=1)
    columns, overrides = Columns(instruction="q", response="a"), {"no_thought": "keep"}
    short = MixedSource(str(tmp_path / "short.jsonl"), weight=4, columns=columns, malformed_overrides=overrides)
    module = data(tmp_path, mix=[long, short], train_rows=100, val_rows=20, test_rows=1)
    assert module.stats.kept == {"train": 100, "val": 20, "test": 1}
    assert module.stats.by_source == {str(tmp_path / "long.jsonl"): 25, str(tmp_path / "short.jsonl"): 96}


def test_processed_examples_have_their_texts_and_write_no_cache(tmp_path: Any) -> None:
    module = MagpieDataModule(train_rows=40, val_rows=10, cache_dir=str(tmp_path / "cache"))
    seen = list(module.processed_examples(limit=7))
    assert len(seen) == module.stats.read == 7
    assert all(example.thoughts and example.answer and example.raw for example, _, _ in seen)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("policy", ["truncate", "truncate_thoughts"])
def test_truncation_prints_a_warning(policy: Any, tmp_path: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="thinkwright"):
        data(tmp_path, max_length=100, overlong=policy)
    assert f"warning: data.overlong {policy}" in caplog.text


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mix": []}, "names no source"),
        ({"mix": [MixedSource("builtin", 1.0), MixedSource("builtin-plain")]}, "some sources have a weight"),
        ({"source_tags": Tags("<a>", "<a>")}, "data.source_tags"),
        ({"steps": StepSettings(markers=[" "])}, "data.steps.markers"),
        ({"malformed_overrides": {"no_thougt": "keep"}}, r"data\.malformed_overrides: .*Did you mean no_thought\?"),
        ({"mix": [MixedSource("builtin", malformed_overrides={"nested": "mend"})]}, "data.malformed_overrides.nested"),
    ],
)
def test_impossible_settings_are_refused_at_construction(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        MagpieDataModule(**settings)


def test_prepared_rows_are_kept_in_the_cache_folder_of_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert MagpieDataModule().cache_dir == tmp_path / "thinkwright"
    assert MagpieDataModule(cache_dir="given").cache_dir.name == "given"
