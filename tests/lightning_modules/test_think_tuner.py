"""A training step has the gradient of one big batch, in any number of micro-batches."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import CSVLogger

from datamodules.magpie import MagpieDataModule
from datamodules.text.segments import Role
from datamodules.text.steps import StepSettings
from errors import UserError
from lightning_modules.checkpoints.content import CONTENT_KEY, CheckpointContent
from lightning_modules.evaluation.answers import EvalSettings
from lightning_modules.net.lora import LoraSettings
from lightning_modules.net.loss import RoleWeights
from lightning_modules.think_tuner import ThinkTuner
from lightning_modules.update.optim import OptimSettings
from tests.conftest import TINY

BASE = "assets/tiny-qwen"
LORA = LoraSettings(rank=4, target_modules="all-linear")


QUIET: dict[str, Any] = {
    "accelerator": "cpu", "devices": 1, "max_epochs": 1, "logger": False, "enable_checkpointing": False,
    "enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0,
}  # fmt: skip


def rows(folder: Path, batch_size: int, **settings: Any) -> MagpieDataModule:
    few: dict[str, Any] = {"train_rows": 32, "val_rows": 4, "num_workers": 0, "cache_dir": str(folder / "cache")}
    return MagpieDataModule(batch_size=batch_size, **few | settings)


def fit(folder: Path, batch_size: int, accumulate: int, **trainer: Any) -> ThinkTuner:
    """Two optimizer steps of 16 rows with plain SGD, whose step is the gradient itself."""
    torch.manual_seed(0)
    tuner = ThinkTuner(BASE, lora=LORA, evaluation=EvalSettings(rows=0))
    plain = {"optimizer": lambda: torch.optim.SGD(tuner.trained().values(), lr=1.0)}
    tuner.configure_optimizers = plain["optimizer"]  # type: ignore[method-assign, assignment]
    settings = QUIET | {"accumulate_grad_batches": accumulate, "limit_val_batches": 0}
    Trainer(**settings | trainer).fit(tuner, rows(folder, batch_size))
    return tuner


@pytest.mark.parametrize(("batch_size", "accumulate"), [(4, 4), (1, 16), (8, 2)])
def test_accumulated_batches_are_one_big_batch(batch_size: int, accumulate: int, tmp_path: Path) -> None:
    """They have different numbers of supervised tokens, so a mean of batch means would fail."""
    whole = fit(tmp_path, 16, 1).trained()
    parts = fit(tmp_path, batch_size, accumulate).trained()
    start = {name: p.detach() for name, p in fit(tmp_path, 16, 1, max_epochs=0).trained().items()}
    for name in whole:
        moved = (whole[name] - start[name]).abs().max()
        assert (parts[name] - whole[name]).abs().max() <= 1e-4 * moved + 1e-7, name
    assert any((whole[name] - start[name]).abs().max() > 1e-3 for name in whole)


@pytest.mark.parametrize("algorithm", ["norm", "value"])
def test_a_gradient_is_clipped_by_norm_or_value(algorithm: Any, tmp_path: Path) -> None:
    """A step of plain SGD with rate 1 is the clipped gradient."""
    clipped = {"gradient_clip_val": 0.01, "gradient_clip_algorithm": algorithm, "limit_train_batches": 1}
    start, free, kept = (
        torch.cat([p.detach().flatten() for p in fit(tmp_path, 16, 1, **settings).trained().values()])
        for settings in ({"max_epochs": 0}, {"limit_train_batches": 1}, clipped)
    )
    whole, taken = free - start, kept - start
    expected = whole * 0.01 / whole.norm() if algorithm == "norm" else whole.clamp(-0.01, 0.01)
    assert whole.norm() > 0.1
    torch.testing.assert_close(taken, expected, rtol=1e-3, atol=1e-6)


PRECISIONS = [
    ("32-true", "float32", "cpu"),
    ("bf16-mixed", "float32", "cpu"),
    ("bf16-mixed", "bfloat16", "cpu"),
    *(
        pytest.param(precision, dtype, "cuda", marks=pytest.mark.gpu)
        for precision, dtype in (("16-mixed", "float16"), ("16-mixed", "float32"), ("bf16-mixed", "bfloat16"))
    ),
]


@pytest.mark.parametrize(("precision", "dtype", "accelerator"), PRECISIONS)
@pytest.mark.filterwarnings("ignore:.*does not have many workers.*")
def test_each_precision_learns_and_keeps_trained_tensors_in_float32(
    precision: str, dtype: Any, accelerator: str, tmp_path: Path
) -> None:
    """The optimizer's state and the metrics, too, whatever the dtypes of base and products."""
    torch.manual_seed(0)
    data, losses = rows(tmp_path, 16, train_rows=16 * 12), []
    tuner = ThinkTuner(BASE, lora=LORA, dtype=dtype, optim=OptimSettings(lr=3e-3), evaluation=EvalSettings(rows=0))

    class Losses(Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            losses.append(tuner.gradients.attempts[-1].loss.item() / len(tuner.gradients.attempts[-1].batch.targets))

    trainer = Trainer(**QUIET | {"accelerator": accelerator, "callbacks": [Losses()]}, precision=precision)  # type: ignore[arg-type]
    trainer.fit(tuner, data)
    assert sum(losses[-3:]) < 0.75 * sum(losses[:3])
    held = {p.dtype for p in tuner.parameters() if not p.requires_grad}
    assert held == {getattr(torch, dtype)}
    assert {p.dtype for p in tuner.trained().values()} == {torch.float32}
    (optimizer,) = trainer.optimizers
    assert {v.dtype for state in optimizer.state.values() for v in state.values()} == {torch.float32}
    assert tuner.eval_loss.losses.dtype == tuner.tag_scores.sums.dtype == torch.float64


@pytest.mark.parametrize("val_batch_size", [1, 3, 50])
def test_figures_of_validation_do_not_depend_on_its_batches(val_batch_size: int, tmp_path: Path) -> None:
    """A mean of batch means would differ in the third digit."""
    figures = []
    for size in (7, val_batch_size):
        torch.manual_seed(0)
        tuner = ThinkTuner(BASE, lora=LORA, evaluation=EvalSettings(rows=0))
        trainer = Trainer(**QUIET)
        trainer.validate(tuner, rows(tmp_path, 4, val_rows=11, val_batch_size=size), verbose=False)
        figures.append({name: float(value) for name, value in trainer.callback_metrics.items()})
    assert figures[0].keys() == figures[1].keys() >= {
        "val/loss", "val/perplexity", "val/loss_thought", "val/loss_answer", "val/loss_tag_open", "val/loss_tag_close",
        "val/loss_end", "val/tag_prob_open", "val/tag_rank_close",
    }  # fmt: skip
    assert figures[0] == pytest.approx(figures[1], rel=1e-5)  # up to rounding


def test_the_tags_are_learned(tmp_path: Path) -> None:
    """They are unlikely before training, and likely at their places after some steps."""
    torch.manual_seed(0)
    data = rows(tmp_path, 16, train_rows=16 * 60, val_rows=20, steps=StepSettings(split="sentence"))
    optim = OptimSettings(lr=5e-3, new_token_lr=2e-2)
    tuner = ThinkTuner(
        "assets/tiny-qwen",
        lora=LoraSettings(32, 64, target_modules="all-linear"),
        optim=optim,
        evaluation=EvalSettings(0),
    )
    trainer = Trainer(**QUIET)
    trainer.validate(tuner, data, verbose=False)
    before = {name: float(value) for name, value in trainer.callback_metrics.items()}
    trainer.fit(tuner, data)
    after = {name: float(value) for name, value in trainer.callback_metrics.items()}
    for tag in ("open", "close"):
        assert before[f"val/tag_prob_{tag}"] < 0.01
        assert before[f"val/tag_rank_{tag}"] > 10
        assert after[f"val/tag_prob_{tag}"] > 0.5
        assert after[f"val/tag_rank_{tag}"] < 3


def test_a_role_of_weight_zero_is_not_in_the_training_loss(make_batch: Any) -> None:
    totals = []
    for weights in (RoleWeights(), RoleWeights(thought=0.0)):
        tuner = ThinkTuner(BASE, lora=LORA, role_weights=weights)
        torch.manual_seed(0)
        tuner.configure_model()
        assert tuner.net is not None
        sums = tuner.net(make_batch(0, 3))
        totals.append((sums.total.item(), sums.losses.tolist()))
    assert totals[0][1] == totals[1][1]  # reported losses have no weights
    assert totals[0][0] - totals[1][0] == pytest.approx(totals[0][1][Role.THOUGHT], rel=1e-5)


def test_the_logged_rate_is_that_of_the_step_and_not_of_the_next_one(tmp_path: Path) -> None:
    class Logger(CSVLogger):
        rates: ClassVar[list[float]] = []

        def log_metrics(self, metrics: Any, step: int | None = None) -> None:
            self.rates.append(metrics["lr"])

    used: list[float] = []

    class Used(Callback):
        def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: torch.optim.Optimizer) -> None:
            used.append(optimizer.param_groups[0]["lr"])

    tuner = ThinkTuner(
        "assets/tiny-qwen",
        lora=LORA,
        optim=OptimSettings(lr=1e-3, lr_scheduler_type="linear"),
        evaluation=EvalSettings(0),
    )
    more = {"logger": Logger(tmp_path), "log_every_n_steps": 1, "limit_val_batches": 0, "callbacks": [Used()]}
    Trainer(**QUIET | {"accumulate_grad_batches": 2} | more).fit(tuner, rows(tmp_path, 4))
    assert used == pytest.approx([1e-3, 2e-3 / 3, 1e-3 / 3, 0.0])
    assert Logger.rates == used


def test_the_steps_of_a_fit_come_from_the_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not from `estimated_stepping_batches`, which would drop the loader's position on resume."""
    monkeypatch.setattr(Trainer, "estimated_stepping_batches", property(lambda _: pytest.fail("asked")))
    tuner = fit(tmp_path, 4, 2, max_epochs=3)
    assert tuner.total_steps() == 3 * 4
    assert fit(tmp_path, 4, 2, max_epochs=3, max_steps=5).total_steps() == 5


def test_a_schedule_needs_an_end() -> None:
    tuner = ThinkTuner(BASE, optim=OptimSettings(lr_scheduler_type="cosine"))
    tuner.trainer = Trainer(max_epochs=-1, accelerator="cpu", logger=False, enable_checkpointing=False)
    with pytest.raises(UserError, match=r"model\.optim\.lr_scheduler_type: 'cosine' needs to know where training ends"):
        tuner.total_steps()


def test_building_the_module_loads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightning_modules.think_tuner.load_base", lambda *_: pytest.fail("loaded"))
    assert ThinkTuner("assets/tiny-qwen").net is None


def test_a_checkpoint_of_other_tensors_is_refused() -> None:
    tuner = ThinkTuner(name=str(TINY), lora=LORA)
    tuner.configure_model()
    checkpoint: dict[str, Any] = {"state_dict": tuner.state_dict()}
    tuner.on_save_checkpoint(checkpoint)
    tuner.on_load_checkpoint(checkpoint)
    checkpoint["state_dict"].popitem()
    with pytest.raises(UserError, match="other trained tensors"):
        tuner.on_load_checkpoint(checkpoint)


def test_a_batch_without_rows_has_a_gradient_of_zero(make_batch: Callable[..., Any]) -> None:
    from datamodules.batches.collate import collate

    tuner = ThinkTuner(BASE, lora=LORA)
    tuner.configure_model()
    assert tuner.net is not None
    tuner.net(collate([], 5, 0)).total.backward()
    assert all(p.grad is not None and not p.grad.any() for p in tuner.trained().values())


def test_each_rank_restores_its_own_part_of_the_logged_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two ranks that restored the same sums would log a loss in which rows count twice."""

    class OfRank(ThinkTuner):
        rank = 0

        @property
        def global_rank(self) -> int:
            return self.rank

    parts = [{"losses": torch.full((6,), float(k)), "tokens": torch.full((6,), float(k))} for k in (1, 2)]
    content = CheckpointContent("base", None, {}, 1, parts, 0, None).to_dict()
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    for rank, part in enumerate(parts):
        tuner = OfRank(BASE)
        tuner.rank = rank
        monkeypatch.setattr(tuner.identity, "check", lambda _: None)
        tuner.on_load_checkpoint({CONTENT_KEY: content})
        assert torch.equal(tuner.train_loss.losses, part["losses"])
        assert torch.equal(tuner.train_loss.tokens, part["tokens"])
