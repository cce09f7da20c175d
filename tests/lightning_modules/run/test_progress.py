"""The line of progress: its content, on a terminal of 80 columns and in a file."""

import io
import re
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from lightning_modules.run.progress import Progress, fit_line

SPEED = {"tokens_per_second": 123456.7, "hours_left": 12.5}


def trainer(step: int = 1_234, loss: float | None = 1.23456, epoch: int = 2, epochs: int | None = 10) -> Any:
    metrics = {} if loss is None else {"train/loss": loss}
    return SimpleNamespace(
        global_step=step, current_epoch=epoch, max_epochs=epochs, progress_bar_metrics=metrics,
        accumulate_grad_batches=2, is_global_zero=True, num_val_batches=[3],
    )  # fmt: skip


def tuner(total: int = 123_456) -> Any:
    decoding = SimpleNamespace(settings=SimpleNamespace(max_new_tokens=100))
    return SimpleNamespace(speed=SPEED, total_steps=lambda: total, decoding=decoding)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds; the first element is the time."""
    now = [100.0]
    monkeypatch.setattr("lightning_modules.run.progress_line.time.monotonic", lambda: now[0])
    return now


def run(bar: Progress, clock: list[float], batches: int, seconds: float) -> None:
    """End `batches` micro-batches of `seconds` each, and then a validation of three batches."""
    for k in range(batches):
        clock[0] += seconds
        bar.on_train_batch_end(trainer(step=(k + 1) // 2), tuner(), None, None, k)
    for k in range(3):
        clock[0] += seconds
        bar.on_validation_batch_end(trainer(), tuner(), None, None, k, 0)
    bar.teardown(trainer(), tuner(), "fit")


def test_the_line_says_epoch_step_loss_speed_and_time_left() -> None:
    text, done, total = fit_line(trainer(), 123_456, SPEED, 1.23456)
    assert text == "epoch 3/10  step 1,234/123,456  loss 1.2346  123,457 tokens/s  12:30:00 left"
    assert (done, total) == (1_234, 123_456)
    assert len(text) < 80


def test_what_is_not_known_is_not_shown() -> None:
    assert fit_line(trainer(step=0, epoch=0, epochs=-1), -1, {}, None) == ("epoch 1  step 0", 0, 0)


def test_a_file_gets_whole_lines_now_and_then(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", file := io.StringIO())
    run(Progress(), clock, batches=20, seconds=10)
    lines = file.getvalue().splitlines()
    assert len(lines) == 5 + 1  # of 200 seconds, at the ends of optimizer steps; and one of the validation's 30
    assert all(re.fullmatch(r"epoch 3/10  step \d+/123,456  loss 1.2346  \S+ tokens/s  \S+ left", x) for x in lines[:5])
    assert lines[5] == "validation  batch 3/3"
    assert "\r" not in file.getvalue() and "\x1b" not in file.getvalue()


def test_the_line_is_computed_only_when_it_is_shown(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading the loss makes the host wait for a GPU."""
    monkeypatch.setattr(sys, "stderr", file := io.StringIO())
    computed: list[str] = []

    def count(*args: Any) -> Any:
        computed.append("line")
        return fit_line(*args)

    monkeypatch.setattr("lightning_modules.run.progress.fit_line", count)
    run(Progress(), clock, batches=20, seconds=10)
    assert len(computed) == file.getvalue().count("epoch") == 5


def test_a_terminal_shows_one_line_of_80_columns(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    run(Progress(), clock, batches=6, seconds=1)
    drawn = [part for part in terminal.getvalue().split("\r") if part.strip()]
    assert max(map(len, drawn)) <= 80
    assert any("step 3/123,456  loss 1.2346" in part and part.rstrip().endswith("|") for part in drawn)
    assert any("validation  batch 3/3" in part for part in drawn)
    assert "\n" not in terminal.getvalue()
    assert terminal.getvalue().endswith("\r")  # and the line is empty again


def answer(bar: Progress, clock: list[float], seconds: float) -> None:
    """Two evaluations, each a pass over three batches and 64 answers of 100 tokens, 32 at once."""
    measured = tuner()
    bar.setup(trainer(), measured, "validate")
    for _ in range(2):
        for k in range(3):
            bar.on_validation_batch_end(trainer(), measured, None, None, k, 0)
        for step in range(1, 201):
            clock[0] += seconds
            measured.answer_progress(64, 32 * (step // 100), 32 * step)
    bar.teardown(trainer(), measured, "validate")


def test_answers_are_shown_with_speed_and_time_left(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", file := io.StringIO())
    bar = Progress()
    bar.doing = "measuring the base"
    answer(bar, clock, seconds=1)
    lines = file.getvalue().splitlines()
    assert len(lines) == 2 * 200 // 30
    assert lines[0] == "measuring the base: 0/64 answers, 32 tokens/s, 0:02:50 left"
    assert lines[4] == "measuring the base: 32/64 answers, 32 tokens/s, 0:00:50 left"
    assert lines[6].startswith("measuring the base  batch") or lines[6].startswith("measuring the base: 0/64")
    monkeypatch.setattr(sys, "stderr", file := io.StringIO())
    answer(Progress(), clock, seconds=1)
    assert file.getvalue().splitlines()[0].startswith("answering held-out rows: 0/64 answers, ")
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    answer(Progress(), clock, seconds=1)
    assert max(len(part) for part in terminal.getvalue().split("\r")) <= 80
    assert "\n" not in terminal.getvalue()


def test_ranks_other_than_the_first_are_silent(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", file := io.StringIO())
    bar, other = Progress(), trainer()
    other.is_global_zero = False
    bar.setup(other, tuner(), "fit")
    run(bar, clock, batches=20, seconds=10)
    assert file.getvalue() == ""
