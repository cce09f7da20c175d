"""Private APIs of torch: an attention kernel, operators that write in place, autocast's dtype, fake tensors."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import wraps
from typing import Any

import torch
from torch import Tensor


def flash_attention(
    query: Tensor, key: Tensor, value: Tensor, starts: Tensor, longest: int, scale: float | None, window: int | None
) -> Tensor:
    """Return causal attention within the parts of a packed sequence, by torch's flash-attention kernel. For CUDA.

    query (T, heads, d), key and value (T, their heads, d) in half precision; starts (parts + 1,) int32; longest: tokens
    of the longest part; window: number of tokens that a token sees, itself included.

    Why private: `torch.nn.attention.varlen` calls the same operator, costs the host 0.1 ms a call, and is missing in
    older releases.
    """
    band = {} if window is None else {"window_size_left": window - 1, "window_size_right": 0}
    out: Tensor = torch.ops.aten._flash_attention_forward(
        query, key, value, starts, starts, longest, longest, 0.0, True, False, scale=scale, **band
    )[0]
    return out


def has_hooks(module: Any) -> bool:
    """Return whether somebody registered a forward or backward hook on a module.

    Why private: torch has no public way to ask.
    """
    return bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    )


def first_derivative_only(backward: Callable[..., tuple[Any, ...]]) -> Callable[..., tuple[Any, ...]]:
    """Let this backward pass raise RuntimeError if somebody asks for a graph of it, for second derivatives.

    Why private: only the gradient mode within a backward pass tells that `create_graph` was given. torch's public
    `once_differentiable` raises only if an incoming gradient needs a derivative. Else the result counts as constant,
    and a penalty on the gradient would have no effect, without a word.
    """

    @wraps(backward)
    def once(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError("create_graph=True: the net's own functions have first derivatives only")
        return backward(ctx, *grads)

    return once


def silu_backward_(grad: Tensor, x: Tensor, out: Tensor) -> None:
    """Write into `out` the gradient of silu at x.

    Why private: the public way is autograd, which allocates the result.
    """
    torch.ops.aten.silu_backward(grad, x, grad_input=out)


def copy_and_scale_(copies: list[Tensor], originals: list[Tensor], scales: Sequence[float]) -> None:
    """Copy tensors, and multiply every second copy, from the first on, by its scale.

    Why private: torch has no public function that copies many small tensors in one kernel.
    """
    torch._foreach_copy_(copies, originals)
    torch._foreach_mul_(copies[::2], scales)


def pack_linear(weight: Tensor, rows: int) -> Tensor | None:
    """Return a copy of a linear layer's weight, (out, in), for `packed_linear`; None where torch has no such layout.

    rows: of the inputs that it will mostly serve. The layout suits this CPU's matrix units. An input of another number
    of rows gives the same product.

    Why private: torch packs weights for its compiled graphs only.
    """
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return None
    try:
        packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, rows)
    except (AttributeError, RuntimeError):  # built without it, or not for this dtype on this CPU
        return None
    return packed


def packed_linear(x: Tensor, packed: Tensor, bias: Tensor | None) -> Tensor:
    """Return x W' + bias, (T, out), for x (T, in) and a weight from pack_linear. Why private: see there."""
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")
    return out


def whole_of(part: Tensor) -> Tensor:
    """Return the tensor that `part` is a view of.

    Why private: torch has no public name for the base of a view.
    """
    assert part._base is not None
    return part._base


def autocast_dtype(device_type: str) -> torch.dtype | None:
    """Return the dtype that autocast gives to matrix products on this type of device; None without autocast.

    Why here: `torch.get_autocast_dtype` is not documented.
    """
    return torch.get_autocast_dtype(device_type) if torch.is_autocast_enabled(device_type) else None


def is_sharded(module: Any) -> bool:
    """Return whether FSDP2 shards the module by itself: its weights are then gathered for each pass.

    Why here: FSDP2 adds a class with the public method `unshard` to the module; importing that class takes a second.
    """
    return hasattr(module, "unshard")


def fake_tensors() -> AbstractContextManager[Any]:
    """Return a mode in which new tensors are fake: they have a shape and a dtype, but no memory. Constants of model
    code, such as masks, may be real.

    Why private: torch documents FakeTensorMode, but has no public module for it.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    return FakeTensorMode(allow_non_fake_inputs=True)


def has_values(tensor: Tensor) -> bool:
    """Return whether a tensor has memory with values; meta and fake tensors have a shape only.

    Why private: torch documents FakeTensor, but has no public module for it.
    """
    from torch._subclasses.fake_tensor import FakeTensor

    return not tensor.is_meta and not isinstance(tensor, FakeTensor)


def observe_results(observe: Callable[[Tensor], None]) -> AbstractContextManager[Any]:
    """Return a mode that calls `observe` with every tensor that an operation returns, below autograd.

    Why private: torch documents TorchDispatchMode, but has no public module for it.
    """
    from torch.utils._python_dispatch import TorchDispatchMode

    def visit(result: Any) -> None:
        if isinstance(result, Tensor):
            observe(result)
        elif isinstance(result, (list, tuple)):
            for item in result:
                visit(item)

    class Observer(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = func(*args, **(kwargs or {}))
            visit(result)
            return result

    return Observer()  # type: ignore[no-untyped-call]


def compute_in_float32() -> AbstractContextManager[Any]:
    """Return a mode in which operations on half-precision tensors compute in float32 and return it. Weights stay as
    they are: each is converted for its operation only.

    Why private: torch documents TorchDispatchMode, but has no public module for it. Autocast does the opposite.
    """
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_map

    half = (torch.float16, torch.bfloat16)
    memory: dict[Any, Tensor] = {}  # for one weight of each shape: to allocate it takes longer than to convert
    in_use: set[Any] = set()

    def single(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return torch.float32 if value in half else value
        key = (value.shape, value.stride(), value.device)
        if value.dtype not in half or value.numel() < 2**16 or key in in_use:
            return value.float() if value.dtype in half else value
        in_use.add(key)
        if key not in memory:
            memory[key] = torch.empty_like(value, dtype=torch.float32)
        return memory[key].copy_(value)

    class Single(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            aliases = [one.alias_info for one in func._schema.returns]
            if any(alias is not None and not alias.is_write for alias in aliases):
                return func(*args, **(kwargs or {}))  # a view, such as the transpose of a weight
            if func is not torch.ops.aten.embedding.default:  # which would convert the whole matrix
                in_use.clear()
                args, kwargs = tree_map(single, (args, kwargs or {}))
            result = func(*args, **(kwargs or {}))
            return tree_map(lambda out: out.float() if isinstance(out, Tensor) and out.dtype in half else out, result)

    return Single()  # type: ignore[no-untyped-call]
