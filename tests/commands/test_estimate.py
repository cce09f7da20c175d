import re
from types import SimpleNamespace
from typing import Any

import pytest

from cli import main
from commands.estimate import depth, duration
from lightning_modules.run.flops import ModelShape, training_flops

SHAPE = ModelShape(frozen=10**6, trained=10**4, head=10**5, head_trained=False, layers=2, attention=64)


def peak(text: str) -> float:
    found = re.search(r"at the peak +([\d,.]+)", text)
    assert found is not None, text
    return float(found[1].replace(",", ""))


def estimated(capsys: pytest.CaptureFixture[str], *args: str) -> float:
    assert main(["estimate", *args]) == 0
    return peak(capsys.readouterr().out)


def test_the_peak_follows_batch_and_length_and_checkpointing(capsys: pytest.CaptureFixture[str]) -> None:
    common = ("--config", "configs/demo.yaml", "--data.batch_size")
    small, large = (estimated(capsys, *common, rows) for rows in ("4", "16"))
    assert 2 < large / small < 4
    again = estimated(capsys, *common, "16", "--model.gradient_checkpointing", "true")
    assert again < 0.6 * large
    assert estimated(capsys, *common, "16", "--data.max_length", "64") == pytest.approx(small, rel=0.1)


@pytest.mark.parametrize(
    ("gb", "said"),
    [
        (30, "30 GB are enough without gradient checkpointing"),
        (24, "24 GB are enough without gradient checkpointing"),
        (23.9, "--model.gradient_checkpointing 1"), (14, "with 10 of 24 layers checkpointed"),
        (0.5, "0.5 GB are not enough: with all layers checkpointed the peak is 1.00 GB"),
    ],
)  # fmt: skip
def test_the_fewest_layers_that_a_device_needs_are_checkpointed(gb: float, said: str) -> None:
    asked = []

    def peak(checkpointed: int) -> float:
        asked.append(checkpointed)
        return max(24 - checkpointed, 1) * 1e9

    assert said in depth(peak, 24, gb)
    assert len(asked) <= 8  # each takes seconds


@pytest.mark.slow
def test_the_estimate_confirms_the_number_of_layers_that_device_gb_names(capsys: pytest.CaptureFixture[str]) -> None:
    common = ("--config", "configs/demo.yaml", "--data.batch_size", "16")
    none, all_layers = (estimated(capsys, *common, "--model.gradient_checkpointing", n) for n in ("0", "true"))
    between = (none + all_layers) / 2e3
    assert main(["estimate", *common, "--device_gb", str(between)]) == 0
    found = re.search(r"--model.gradient_checkpointing (\d+)", capsys.readouterr().out)
    assert found is not None
    told = int(found[1])
    fewer, enough = (estimated(capsys, *common, "--model.gradient_checkpointing", str(n)) for n in (told - 1, told))
    assert enough <= between * 1e3 < fewer


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--data.batch_size", "0"), "data.batch_size: '0' is below 1"),
        (("--tflops", "1", "--data.train_rows", "null"), "data.train_rows"),
        (("--tflops", "1", "--tokens_per_second", "1"), "Give one of the two"),
        (("--data.bach_size", "4"), "Did you mean data.batch_size?"),
        (("--trainer.strategy", "fsdp"), "configs/strategy/fsdp.yaml"),
    ],
)
def test_mistakes_are_one_line(args: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["estimate", "--config", "configs/demo.yaml", *args]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line


def given(**changed: Any) -> Any:
    data = SimpleNamespace(max_length=100, batch_size=2, train_rows=1_000)
    trainer = SimpleNamespace(max_epochs=3, max_steps=-1, accumulate_grad_batches=5)
    settings = {"data": data, "trainer": trainer, "row_tokens": None, "row_supervised": None, "tflops": None,
                "tokens_per_second": None}  # fmt: skip
    return SimpleNamespace(**settings | changed)


def test_time_is_tokens_by_rate_or_flops_by_rate_and_devices() -> None:
    by_tokens = duration(given(tokens_per_second=10.0, row_tokens=90, row_supervised=60), SHAPE, 2)
    assert "3,000 rows of 90 tokens, 60 of them supervised" in by_tokens
    assert "5 h 0 min" in by_tokens  # 180,000 tokens at 10 a second
    seconds = 3_000 * training_flops(SHAPE, [100], 100) / (2 * 1e9)
    by_flops = duration(given(tflops=1e-3), SHAPE, 2)
    assert f"{seconds // 3600:.0f} h {round(seconds / 60) % 60} min" in by_flops
    assert "0.00 TFLOP/s per device" in by_flops


def test_steps_end_a_fit_before_its_epochs_do() -> None:
    trainer = SimpleNamespace(max_epochs=3, max_steps=7, accumulate_grad_batches=5)
    assert duration(given(trainer=trainer, tflops=1.0), SHAPE, 2).startswith("140 rows")
    trainer.max_epochs = -1
    assert duration(given(trainer=trainer, tflops=1.0), SHAPE, 2).startswith("140 rows")
    trainer.max_steps = 10**6
    trainer.max_epochs = 3
    assert duration(given(trainer=trainer, tflops=1.0), SHAPE, 2).startswith("3,000 rows")
