"""The digest of tensors, and copying them into those of a net."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from errors import UserError
from lightning_modules.checkpoints.start_tensors import put, require_finite, weights_digest

DTYPES = (torch.float32, torch.bfloat16, torch.float64)


PARTS = st.tuples(st.text(max_size=3), st.integers(0, 4), st.sampled_from(DTYPES))


@given(st.lists(PARTS, max_size=4, unique_by=lambda part: part[0]))
def test_a_digest_depends_on_all_values_and_not_on_the_order(parts: list[tuple[str, int, torch.dtype]]) -> None:
    tensors = {name: torch.arange(float(2 * size)).reshape(2, size).to(dtype) for name, size, dtype in parts}
    digest = weights_digest(tensors)
    assert weights_digest(dict(reversed(tensors.items()))) == digest
    for name, tensor in tensors.items():
        others = [tensors | {name: tensor.reshape(-1)}, tensors | {name: tensor.half()}]
        others += [tensors | {name: tensor + 1}] if tensor.numel() else []
        others += [{key: value for key, value in tensors.items() if key != name}]
        assert digest not in [weights_digest(other) for other in others]


def test_tensors_of_other_names_or_shapes_are_refused_and_nothing_is_copied() -> None:
    into = {"a": torch.zeros(2), "b": torch.zeros(3)}
    for tensors, words in [
        ({"a": torch.ones(2)}, r"b is missing in it, and of shape \(3,\) in the model"),
        ({"a": torch.ones(2), "b": torch.ones(4)}, r"b is of shape \(4,\) in it, and of shape \(3,\) in the model"),
        (into | {"c": torch.ones(1)}, r"c is of shape \(1,\) in it, and missing in the model"),
    ]:
        with pytest.raises(UserError, match=words):
            put(tensors, into, "x.ckpt")
    assert not any(tensor.any() for tensor in into.values())
    put({"a": torch.ones(2), "b": torch.ones(3, dtype=torch.bfloat16)}, into, "x.ckpt")
    assert all((tensor == 1).all() and tensor.dtype == torch.float32 for tensor in into.values())


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_values_that_are_not_finite_are_refused(value: float) -> None:
    require_finite({"a": torch.ones(2)}, "x.ckpt")
    with pytest.raises(UserError, match=r"^model\.start: 'x\.ckpt' holds values that are not finite, in b"):
        require_finite({"a": torch.ones(2), "b": torch.tensor([0, value])}, "x.ckpt")
