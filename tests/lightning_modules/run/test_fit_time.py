from typing import Any

import pytest

from lightning_modules.run.fit_time import FitTime


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The current time in seconds; a test moves it."""
    now = [100.0]
    monkeypatch.setattr("lightning_modules.run.fit_time.time.perf_counter", lambda: now[0])
    return now


def test_each_second_of_a_fit_belongs_to_one_part(clock: list[float]) -> None:
    timer, nobody = FitTime(), (None, None)
    hooks: Any = timer
    clock[0] += 5  # rows and model
    hooks.on_validation_start(*nobody)
    clock[0] += 2  # before training
    hooks.on_validation_end(*nobody)
    clock[0] += 1
    hooks.on_train_start(*nobody)
    clock[0] += 20
    with timer.saving():
        clock[0] += 3
    clock[0] += 20
    hooks.on_validation_start(*nobody)
    clock[0] += 4
    with timer.saving():  # a signal stops a validation, and a checkpoint is written inside it
        clock[0] += 1
    clock[0] += 4
    hooks.on_validation_end(*nobody)
    hooks.on_train_end(*nobody)
    clock[0] += 7  # the best checkpoint
    assert timer.figures() == {
        "seconds": 67.0, "training_seconds": 40.0, "validation_seconds": 10.0, "loading_seconds": 13.0,
        "saving_seconds": 4.0, "not_training": round(27 / 67, 4),
    }  # fmt: skip
    assert timer.line() == "time: 67 s (training 60 %, validation 15 %, loading 19 %, saving 6 %)"


def test_a_failed_write_ends_the_time_of_saving(clock: list[float]) -> None:
    timer = FitTime()

    def write() -> None:
        with timer.saving():
            clock[0] += 1
            raise FileNotFoundError

    with pytest.raises(FileNotFoundError):
        write()
    clock[0] += 2
    assert (timer.figures()["saving_seconds"], timer.figures()["loading_seconds"]) == (1.0, 2.0)


def test_a_fit_that_took_no_time_has_no_shares(clock: list[float]) -> None:
    assert FitTime().figures()["not_training"] == 0.0
