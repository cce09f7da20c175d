"""Each private API of torch that the project uses does what its docstring says."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lightning_modules.internals.torch_internals import (
    autocast_dtype,
    copy_and_scale_,
    first_derivative_only,
    flash_attention,
    has_hooks,
    is_sharded,
    silu_backward_,
    whole_of,
)


def test_the_flash_attention_operator_has_the_arguments_that_are_given() -> None:
    """By its schema, which says the same without a GPU."""
    schema = torch.ops.aten._flash_attention_forward.default._schema
    assert [argument.name for argument in schema.arguments[:10]] == [
        "query", "key", "value", "cum_seq_q", "cum_seq_k", "max_q", "max_k", "dropout_p", "is_causal",
        "return_debug_mask",
    ]  # fmt: skip
    assert {"scale", "window_size_left", "window_size_right"} <= {a.name for a in schema.arguments if a.kwarg_only}


@pytest.mark.gpu
@pytest.mark.parametrize("window", [None, 2])
def test_flash_attention_is_causal_within_parts(window: int | None) -> None:
    q, k, v = torch.randn(3, 5, 2, 64, device="cuda", dtype=torch.bfloat16)
    starts = torch.tensor([0, 2, 5], dtype=torch.int32, device="cuda")
    out = flash_attention(q, k, v, starts, 3, None, window)
    part = torch.tensor([0, 0, 1, 1, 1], device="cuda")
    distance = torch.arange(5, device="cuda")[:, None] - torch.arange(5, device="cuda")
    seen = (part[:, None] == part) & (distance >= 0) & (distance < (window or 5))
    query, key, value = (t.transpose(0, 1)[None].float() for t in (q, k, v))
    right = F.scaled_dot_product_attention(query, key, value, attn_mask=seen)
    torch.testing.assert_close(out.float(), right[0].transpose(0, 1), rtol=2e-2, atol=2e-2)


class Cube(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor]:
        return (3 * ctx.saved_tensors[0] ** 2 * grad,)


def cube(x: torch.Tensor) -> torch.Tensor:
    cubed: torch.Tensor = Cube.apply(x)  # type: ignore[no-untyped-call]
    return cubed


@pytest.mark.parametrize("power", [1, 2])
def test_a_graph_of_the_gradient_is_refused_whether_or_not_the_incoming_gradient_has_one(power: int) -> None:
    x = torch.tensor(2.0, requires_grad=True)
    (grad,) = torch.autograd.grad(cube(x) ** power, x)
    assert grad == (12 if power == 1 else 2 * 8 * 12)
    with pytest.raises(RuntimeError, match="first derivatives only"):
        torch.autograd.grad(cube(x) ** power, x, create_graph=True)


@pytest.mark.parametrize(
    "register",
    ["register_forward_hook", "register_forward_pre_hook", "register_full_backward_hook",
     "register_full_backward_pre_hook"],
)  # fmt: skip
def test_hooks_of_every_kind_are_seen(register: str) -> None:
    module = nn.Linear(1, 1)
    assert not has_hooks(module)
    handle = getattr(module, register)(lambda *_: None)
    assert has_hooks(module)
    handle.remove()
    assert not has_hooks(module)


def test_the_gradient_of_silu_is_autograds() -> None:
    x, grad = torch.randn(2, 50)
    out = torch.empty(50)
    silu_backward_(grad, x, out)
    leaf = x.clone().requires_grad_()
    torch.testing.assert_close(out, torch.autograd.grad(F.silu(leaf), leaf, grad)[0])


def test_every_second_copy_is_scaled() -> None:
    originals = [torch.ones(2), torch.ones(3), torch.ones(1), torch.ones(2)]
    copies = [torch.empty_like(one, dtype=torch.bfloat16) for one in originals]
    copy_and_scale_(copies, originals, [2.0, 3.0])
    assert [one.tolist() for one in copies] == [[2.0, 2.0], [1.0, 1.0, 1.0], [3.0], [1.0, 1.0]]


def test_the_whole_of_a_view_is_the_tensor_itself() -> None:
    whole = torch.randn(4, 6)
    assert whole_of(torch.split(whole, [2, 4], dim=1)[1]) is whole


def test_autocasts_dtype_is_known_inside_and_none_outside() -> None:
    assert autocast_dtype("cpu") is None
    with torch.autocast("cpu", torch.bfloat16):
        assert autocast_dtype("cpu") == torch.bfloat16
        with torch.autocast("cpu", enabled=False):
            assert autocast_dtype("cpu") is None


def test_a_module_is_sharded_after_fully_shard() -> None:
    from torch.distributed.fsdp import FSDPModule

    assert not is_sharded(nn.Linear(2, 2))
    assert hasattr(FSDPModule, "unshard")  # fully_shard makes the module's class a subclass of it
