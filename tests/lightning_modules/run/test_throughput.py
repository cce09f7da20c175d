from types import SimpleNamespace
from typing import Any

import pytest

from lightning_modules.run import throughput
from lightning_modules.run.flops import ModelShape
from lightning_modules.run.throughput import Throughput


class Tuner:
    """The part of ThinkTuner that the callback uses."""

    device = SimpleNamespace(type="cpu")

    def __init__(self, steps: int) -> None:
        self.speed: dict[str, float] = {}
        self.total_steps = lambda: steps


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The current time in seconds; a test moves it."""
    now = [0.0]
    monkeypatch.setattr("lightning_modules.run.throughput.time.perf_counter", lambda: now[0])
    return now


@pytest.fixture
def trainer() -> Any:
    data = SimpleNamespace(batch_size=2, max_length=50)
    return SimpleNamespace(
        global_step=0, accumulate_grad_batches=2, state=SimpleNamespace(fn="fit"), world_size=1, log_every_n_steps=2,
        datamodule=data,
    )  # fmt: skip


def train(callback: Throughput, tuner: Any, trainer: Any, batches: int, clock: list[float]) -> None:
    """Batches of two rows, with 80 tokens of 100, five seconds each."""
    batch: Any = SimpleNamespace(step_tokens=90, indices=[0, 1], lengths=[30, 50], predict_from=range(45))
    for index in range(batches):
        clock[0] += 5
        trainer.global_step += (index + 1) % trainer.accumulate_grad_batches == 0
        callback.on_train_batch_end(trainer, tuner, None, batch, index)


def test_throughput_counts_training_and_not_evaluation(clock: list[float], trainer: Any) -> None:
    callback, tuner = Throughput(), Tuner(steps=100)
    callback.on_train_start(trainer, tuner)  # type: ignore[arg-type]
    train(callback, tuner, trainer, 4, clock)
    callback.on_validation_start(trainer, tuner)  # type: ignore[arg-type]
    clock[0] += 1000
    callback.on_validation_end(trainer, tuner)  # type: ignore[arg-type]
    clock[0] += 4
    callback.on_train_end(trainer, tuner)  # type: ignore[arg-type]
    resumed = Throughput()
    resumed.load_state_dict(callback.state_dict())
    figures = resumed.figures(1)
    assert figures.pop("peak_memory_gb") > 0.05  # this process, with torch
    assert figures == {
        "train_seconds": 24.0, "optimizer_steps": 2, "supervised_tokens_trained": 180,
        "supervised_tokens_per_second": 7.5, "rows_per_second": 0.3333, "packing_efficiency": 0.8,
    }  # fmt: skip


def test_rates_and_remaining_time_are_those_since_the_last_log(clock: list[float], trainer: Any) -> None:
    callback, tuner = Throughput(), Tuner(steps=10)
    callback.on_train_start(trainer, tuner)  # type: ignore[arg-type]
    train(callback, tuner, trainer, 2, clock)
    assert tuner.speed == {}  # not at every step
    train(callback, tuner, trainer, 2, clock)
    clock[0] += 40  # training becomes slower
    train(callback, tuner, trainer, 4, clock)
    assert tuner.speed["tokens_per_second"] == pytest.approx(180 / 60)
    assert tuner.speed["rows_per_second"] == pytest.approx(8 / 60)
    assert tuner.speed["hours_left"] == pytest.approx(6 * 30 / 3600)  # 6 of 10 steps, 30 s each


def test_rows_count_for_all_ranks_and_an_empty_batch_has_no_capacity(clock: list[float], trainer: Any) -> None:
    trainer.world_size, trainer.accumulate_grad_batches = 3, 1
    callback, tuner = Throughput(), Tuner(steps=-1)
    callback.on_train_start(trainer, tuner)  # type: ignore[arg-type]
    train(callback, tuner, trainer, 1, clock)
    empty: Any = SimpleNamespace(step_tokens=90, indices=[], lengths=[1], predict_from=())
    trainer.global_step += 1
    callback.on_train_batch_end(trainer, tuner, None, empty, 1)  # type: ignore[arg-type]
    assert tuner.speed["rows_per_second"] == pytest.approx(6 / 5)
    assert tuner.speed["packing_efficiency"] == pytest.approx(0.8)
    assert "hours_left" not in tuner.speed  # the number of steps is unknown


def test_mfu_is_logged_if_the_peak_is_known(clock: list[float], trainer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        throughput, "training_flops", lambda shape, lengths, supervised: 1e3 * sum(lengths) + supervised
    )
    callback, tuner = Throughput(), Tuner(steps=10)
    callback.on_train_start(trainer, tuner)  # type: ignore[arg-type]
    callback._peak, callback._shape = 20_000.0, ModelShape(1, 1, 1, False, 1, 1)
    train(callback, tuner, trainer, 4, clock)
    assert tuner.speed["mfu"] == pytest.approx((80_000 + 45) / 5 / 20_000)
