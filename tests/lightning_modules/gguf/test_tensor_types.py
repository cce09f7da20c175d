"""Numbers in the types of a GGUF file: within the bounds of rounding, or refused."""

from typing import Any

import numpy as np
import pytest
from gguf import GGMLQuantizationType
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from errors import UserError
from lightning_modules.gguf.tensor_types import convert, farthest, rounded, tensor_type

WIDE = st.floats(-60_000, 60_000, width=32)
SMALL = st.floats(-(2.0**-10), 2.0**-10, width=32)


@settings(deadline=None, max_examples=50)
@given(arrays.arrays(np.float32, (3, 64), elements=st.one_of(WIDE, SMALL)), st.sampled_from(["F16", "BF16", "Q8_0"]))
def test_every_number_comes_back_within_its_bound(weight: Any, name: str) -> None:
    kind = GGMLQuantizationType[name]
    again = rounded(convert("w", weight, kind), kind).reshape(weight.shape)
    assert (np.abs(again - weight) <= farthest(weight, kind)).all()


def test_a_bound_is_no_wider_than_a_step_of_the_type() -> None:
    weight = np.linspace(-1, 1, 64, dtype=np.float32)[None]
    for name, step in (("F16", 2.0**-11), ("BF16", 2.0**-8), ("Q8_0", 0.5 / 127 + 1e-3)):
        assert farthest(weight, GGMLQuantizationType[name]).max() <= step * 1.01
    assert not farthest(weight, GGMLQuantizationType.F32).any()


@pytest.mark.parametrize("name", ["F16", "BF16", "Q8_0"])
def test_vectors_stay_f32_and_rows_that_are_no_blocks_stay_f16(name: Any) -> None:
    assert tensor_type(name, (64,)).name == "F32"
    assert tensor_type(name, (48, 64)).name == name
    assert tensor_type(name, (64, 48)).name == ("F16" if name == "Q8_0" else name)


@pytest.mark.parametrize(("value", "name"), [(70_000.0, "F16"), (-65_510.0, "F16"), (9e6, "Q8_0"), (3.4e38, "BF16")])
def test_a_number_that_the_type_cannot_hold_is_refused(value: float, name: str) -> None:
    weight = np.full((2, 64), value, np.float32)
    with pytest.raises(UserError, match=rf"--gguf: '{name}' cannot hold w: it has .*, and the largest number is"):
        convert("w", weight, GGMLQuantizationType[name])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_number_that_is_not_finite_is_refused(value: float) -> None:
    with pytest.raises(UserError, match="--ckpt_path: the model has a value in w that is not a finite number"):
        convert("w", np.array([[1.0, value]], np.float32), GGMLQuantizationType.F32)
