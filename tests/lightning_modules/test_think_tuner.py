"""What a step weighs: the gradient of one big batch, however it is accumulated."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer

from datamodules.magpie import MagpieDataModule
from errors import UserError
from lightning_modules.lora import LoraSettings
from lightning_modules.optim import OptimSettings
from lightning_modules.think_tuner import EvalSettings, ThinkTuner
from tests.conftest import TINY

LORA = LoraSettings(rank=4, target_modules="all-linear")


def fit(folder: Path, batch_size: int, accumulate: int, **trainer: Any) -> ThinkTuner:
    """Two optimizer steps of 16 rows with plain SGD, whose step is the gradient itself."""
    torch.manual_seed(0)
    data = MagpieDataModule(
        train_rows=32, val_rows=4, batch_size=batch_size, num_workers=0, cache_dir=str(folder / "cache")
    )
    tuner = ThinkTuner(lora=LORA, evaluation=EvalSettings(rows=0))
    plain = {"optimizer": lambda: torch.optim.SGD(tuner.trained().values(), lr=1.0)}
    tuner.configure_optimizers = plain["optimizer"]  # type: ignore[method-assign, assignment]
    settings: dict[str, Any] = {
        "accelerator": "cpu", "devices": 1, "max_epochs": 1, "accumulate_grad_batches": accumulate, "logger": False,
        "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False,
        "limit_val_batches": 0, "num_sanity_val_steps": 0,
    }  # fmt: skip
    Trainer(**settings | trainer).fit(tuner, data)
    return tuner


@pytest.mark.parametrize(("batch_size", "accumulate"), [(4, 4), (1, 16), (8, 2)])
def test_accumulated_batches_are_one_big_batch(batch_size: int, accumulate: int, tmp_path: Path) -> None:
    """Although they hold different numbers of supervised tokens: a mean of batch means would fail here."""
    whole = fit(tmp_path, 16, 1).trained()
    parts = fit(tmp_path, batch_size, accumulate).trained()
    start = {name: p.detach() for name, p in fit(tmp_path, 16, 1, max_epochs=0).trained().items()}
    for name in whole:
        moved = (whole[name] - start[name]).abs().max()
        assert (parts[name] - whole[name]).abs().max() <= 1e-4 * moved + 1e-7, name
    assert any((whole[name] - start[name]).abs().max() > 1e-3 for name in whole)


def test_a_step_that_would_be_cut_short_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"trainer\.limit_train_batches: '3' ends in the middle of an optimizer step"):
        fit(tmp_path, 4, 4, limit_train_batches=3)


def test_the_steps_of_a_fit_come_from_the_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not from `estimated_stepping_batches`, which would drop the loader's position on resume."""
    monkeypatch.setattr(Trainer, "estimated_stepping_batches", property(lambda _: pytest.fail("asked")))
    tuner = fit(tmp_path, 4, 2, max_epochs=3)
    assert tuner.total_steps() == 3 * 4
    assert fit(tmp_path, 4, 2, max_epochs=3, max_steps=5).total_steps() == 5


def test_a_schedule_needs_an_end() -> None:
    tuner = ThinkTuner(optim=OptimSettings(schedule="cosine"))
    tuner.trainer = Trainer(max_epochs=-1, accelerator="cpu", logger=False, enable_checkpointing=False)
    with pytest.raises(UserError, match=r"model\.optim\.schedule: 'cosine' needs to know where training ends"):
        tuner.total_steps()


def test_building_the_module_loads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightning_modules.think_tuner.load_base", lambda *_: pytest.fail("loaded"))
    assert ThinkTuner().net is None


def test_a_checkpoint_of_other_tensors_is_refused() -> None:
    tuner = ThinkTuner(name=str(TINY), lora=LORA)
    tuner.configure_model()
    checkpoint: dict[str, Any] = {"state_dict": tuner.state_dict()}
    tuner.on_save_checkpoint(checkpoint)
    tuner.on_load_checkpoint(checkpoint)
    checkpoint["state_dict"].popitem()
    with pytest.raises(UserError, match="other trained tensors"):
        tuner.on_load_checkpoint(checkpoint)


def test_the_loss_of_a_step_without_rows_has_a_gradient(make_batch: Callable[..., Any]) -> None:
    from datamodules.collate import collate

    tuner = ThinkTuner(lora=LORA)
    tuner.configure_model()
    assert tuner.net is not None
    tuner.net(collate([], 5, 0)).total.backward()
    assert all(p.grad is not None and not p.grad.any() for p in tuner.trained().values())
