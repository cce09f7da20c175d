"""Private APIs of Lightning still do what we use them for. A failure here means that Lightning changed."""

import copy
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.utils.data import DataLoader

from lightning_modules.internals.lightning_internals import (
    LoopCounts,
    batches_done,
    disable_signal_handlers,
    run_pending_validation,
    set_loop_counts,
)

ROWS, ACCUMULATE = 6, 2  # 6 batches, so 3 optimizer steps an epoch


class Tiny(LightningModule):
    """One weight, trained on ones; it notes the order of its hooks."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.seen: list[str] = []

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        self.seen.append(f"train {batches_done(self.trainer)}")
        return (self.weight * batch).sum()

    def validation_step(self, batch: torch.Tensor, batch_idx: int) -> None:
        self.seen.append("validate" if self.trainer.validating else "validate without the flag")
        self.log("val/loss", self.weight.detach().sum())

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters())
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def trainer_of(*callbacks: Callback, **settings: Any) -> Trainer:
    quiet: dict[str, Any] = {
        "accelerator": "cpu", "devices": 1, "logger": False, "enable_checkpointing": False,
        "enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0,
        "accumulate_grad_batches": ACCUMULATE, "max_epochs": 1,
    }  # fmt: skip
    trainer = Trainer(**quiet | settings, callbacks=list(callbacks))
    disable_signal_handlers(trainer)
    return trainer


def loader() -> Any:
    return DataLoader(torch.ones(ROWS, 1), batch_size=1)  # type: ignore[arg-type]


def test_lightning_leaves_the_signal_handlers_alone() -> None:
    before = signal.getsignal(signal.SIGTERM)

    class Look(Callback):
        def on_train_batch_start(self, *_: Any) -> None:
            assert signal.getsignal(signal.SIGTERM) is before

    trainer_of(Look()).fit(Tiny(), loader())


def test_without_our_function_lightning_does_install_a_handler() -> None:
    """Else the function is no longer needed."""
    before, during = signal.getsignal(signal.SIGTERM), []

    class Look(Callback):
        def on_train_batch_start(self, *_: Any) -> None:
            during.append(signal.getsignal(signal.SIGTERM))

    trainer = trainer_of(Look())
    del trainer._signal_connector.register_signal_handlers
    trainer.fit(Tiny(), loader())
    assert before not in during


def test_batches_done_counts_over_epochs_and_not_ahead() -> None:
    tiny = Tiny()
    trainer_of(max_epochs=2).fit(tiny, loader())
    assert tiny.seen == [f"train {k}" for k in range(2 * ROWS)]


def test_a_pending_validation_runs_before_the_next_batch_and_training_continues() -> None:
    class Pending(Callback):
        def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
            run_pending_validation(trainer)
            assert trainer.training and not trainer.validating
            assert float(trainer.callback_metrics["val/loss"]) == 1.0

    tiny = Tiny()
    trainer_of(Pending()).fit(tiny, loader(), loader())
    assert tiny.seen == ["validate"] * ROWS + [f"train {k}" for k in range(ROWS)] + ["validate"] * ROWS


@pytest.mark.parametrize(("epochs", "steps"), [(0, 2), (1, 0), (1, 1), (2, 0)])
def test_counts_that_we_set_are_those_that_lightning_has_there(epochs: int, steps: int, tmp_path: Path) -> None:
    """At an optimizer step and between two epochs: a fit that resumes from them takes the remaining batches."""
    per_epoch = ROWS // ACCUMULATE
    done = epochs * per_epoch + steps
    counts = LoopCounts(epochs, steps, steps * ACCUMULATE, done * ACCUMULATE, done)

    class SetCounts(Callback):
        def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
            before = copy.deepcopy(checkpoint["loops"])
            set_loop_counts(checkpoint, counts)
            assert shape(checkpoint["loops"]) == shape(before)  # nothing is added, nothing is removed

        def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
            assert (trainer.current_epoch, trainer.global_step) == (epochs, done)
            assert batches_done(trainer) == done * ACCUMULATE
            assert trainer.lr_scheduler_configs[0].scheduler.last_epoch == done

    first = trainer_of()
    first.fit(Tiny(), loader())
    first.save_checkpoint(tmp_path / "some.ckpt")
    resumed, tiny = trainer_of(SetCounts(), max_epochs=3), Tiny()
    # Lightning goes on within an epoch but does not skip batches: our loader starts at the position by itself
    resumed.fit(tiny, DataLoader(torch.ones(ROWS, 1), batch_size=1), ckpt_path=tmp_path / "some.ckpt")  # type: ignore[arg-type]
    assert tiny.seen[0] == f"train {done * ACCUMULATE}"
    assert resumed.global_step == 3 * per_epoch
    assert batches_done(resumed) == 3 * ROWS


def shape(state: Any) -> Any:
    return {name: shape(value) for name, value in state.items()} if isinstance(state, dict) else type(state)
