"""replay: a step is computed again row by row."""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from commands.replay import precision_of, print_micro_batch, row_losses, run, step
from commands.which_run import run_config
from errors import UserError
from lightning_modules.net.lora import LoraSettings
from lightning_modules.run.folder import Run
from lightning_modules.think_tuner import ThinkTuner
from tests.conftest import TINY


@pytest.fixture(scope="module")
def tuner() -> ThinkTuner:
    made = ThinkTuner(name=str(TINY), lora=LoraSettings(rank=4))
    made.configure_model()
    return made


def test_the_rows_of_a_batch_add_up_to_its_loss(tuner: ThinkTuner, make_batch: Callable[..., Any]) -> None:
    batch = make_batch(0, 3, 9)
    total, gradients = step(tuner, batch, 5, nullcontext())
    rows = list(row_losses(tuner, batch, 5, nullcontext()))
    assert [row.row_id for row in rows] == ["0", "3", "9"]
    assert sum(row.tokens for row in rows) == len(batch.targets)
    assert sum(row.loss * row.tokens for row in rows) == pytest.approx(total, rel=1e-4)
    assert gradients.keys() == tuner.trained().keys()


def test_a_loss_and_a_gradient_that_are_not_finite_are_marked(
    make_batch: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    broken = ThinkTuner(name=str(TINY), lora=LoraSettings(rank=4))
    broken.configure_model()
    name, parameter = next(iter(broken.trained().items()))
    with torch.no_grad():
        parameter.view(-1)[0] = float("nan")
    print_micro_batch(0, broken, make_batch(0), 5, nullcontext())
    out = capsys.readouterr().out
    assert "<- not finite" in out
    assert f"    {name}\n" in out


def test_another_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a replay file"):
        run([str(tmp_path / "last.ckpt")])


def test_a_config_that_lost_its_trainer_is_named(tmp_path: Path) -> None:
    assert precision_of({"trainer": {"precision": "bf16-mixed"}}) == "bf16-mixed"
    assert precision_of({"trainer": {}}) == "32-true"
    (tmp_path / "config.yaml").write_text("model: {}\ndata: {}\n")
    with pytest.raises(UserError, match=r"config\.yaml' has no settings of trainer"):
        run_config(Run(tmp_path))
