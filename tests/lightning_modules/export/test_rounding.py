"""Weights in another dtype: rounded once, or one line that names --dtype."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from errors import UserError
from lightning_modules.export.merged import export_merged
from lightning_modules.export.rounding import round_weights
from lightning_modules.think_tuner import ThinkTuner
from tests.conftest import TEMPLATE, random_lm
from tests.lightning_modules.export.conftest import CARD


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_weights_have_the_values_of_the_dtype_and_stay_in_float32(dtype: torch.dtype) -> None:
    model = random_lm("qwen2")
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    round_weights(model, dtype)
    for name, weight in model.named_parameters():
        assert weight.dtype == torch.float32 and torch.equal(weight, before[name].to(dtype).float())


@pytest.mark.parametrize(
    ("value", "dtype", "words"),
    [
        (70_000.0, torch.float16, r"--dtype: 'float16' cannot hold model\..*: it has 70000, and the largest number is"),
        (-65_520.0, torch.float16, r"--dtype: 'float16' cannot hold"),
        (3.4e38, torch.bfloat16, r"--dtype: 'bfloat16' cannot hold"),
        (float("inf"), torch.float32, r"--ckpt_path: the model has a value in model\..* that is not a finite number"),
        (float("nan"), torch.float16, r"--ckpt_path: the model has a value in model\..* that is not a finite number"),
    ],
)
def test_a_weight_that_the_dtype_cannot_hold_is_one_line(value: float, dtype: torch.dtype, words: str) -> None:
    model = random_lm("qwen2")
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[3, 5] = value
    with pytest.raises(UserError, match=words):
        round_weights(model, dtype)


@pytest.mark.parametrize("value", [65_504.0, -65_504.0])
def test_the_largest_number_of_float16_fits(value: float) -> None:
    model = random_lm("qwen2")
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[3, 5] = value
    round_weights(model, torch.float16)
    assert model.model.layers[1].mlp.up_proj.weight[3, 5].item() == value


def test_a_dtype_that_overflows_between_the_layers_is_one_line_and_leaves_nothing(
    trained: Callable[..., ThinkTuner], tmp_path: Path
) -> None:
    tuner = trained("qwen2")
    assert tuner.net is not None
    layer: Any = tuner.net.causal_lm.model.layers[1].mlp
    with torch.no_grad():
        for module in (layer.up_proj, layer.gate_proj):
            module.base_layer.weight.mul_(3_000)  # each weight fits, a product of two outputs does not
    with pytest.raises(UserError, match=r"--dtype: 'float16' is too small for values between the layers.*bfloat16 or"):
        export_merged(tuner, TEMPLATE, tmp_path / "out", CARD, torch.float16)
    assert not (tmp_path / "out").exists()
