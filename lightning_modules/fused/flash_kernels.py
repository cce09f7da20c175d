"""The flash-attention kernels of a GPU, and the fastest of them for one kind of attention, by measurement.

torch has one of its own. The package flash-attn-4 has newer ones, compiled at their first use: on Hopper and Blackwell
torch's kernel reaches a fifth of the hardware's rate (docs/speed.md). A kernel is taken only if its output and its
gradients are those of torch's kernel, up to the rounding of half precision, and if it is faster on this GPU.
"""

import logging
from collections.abc import Callable, Mapping
from functools import cache
from importlib.util import find_spec
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_modules.internals.torch_internals import flash_attention

log = logging.getLogger("thinkwright")

# (query, key, value, starts, longest, scale, window) -> attention in query's shape, as torch_internals.flash_attention
Kernel = Callable[[Tensor, Tensor, Tensor, Tensor, int, float | None, int | None], Tensor]
Clock = Callable[[Callable[[], object]], float]  # -> seconds of a call

ROWS, LENGTH = 8, 1024  # of the measurement
TOLERANCE = 2e-2  # relative error of a whole tensor; bfloat16 keeps 8 bits, and two kernels round at other places
CALLS = 5


class AttentionKind(NamedTuple):
    """What a kernel is compiled and chosen for; `d` is the width of a head."""

    device: torch.device
    dtype: torch.dtype
    heads: int
    kv_heads: int
    d: int


@cache
def kernel_of(kind: AttentionKind) -> Kernel:
    """Return the kernel for a kind of attention on a GPU. The first call of a kind measures, if there is a choice."""
    known = kernels()
    return known[fastest(known, kind, gpu_seconds)]


def kernels() -> dict[str, Kernel]:
    """Return the kernels that are installed, by name; torch's is the first."""
    found: dict[str, Kernel] = {"torch": flash_attention}
    try:
        if find_spec("flash_attn.cute"):
            found["flash-attn-4"] = _flash_attn_4
    except ImportError as error:  # an older flash_attn, built for another torch, fails when it is imported
        log.warning(f"flash-attn cannot be used: {first_line(error)}; torch's kernel attends")
    return found


def fastest(known: Mapping[str, Kernel], kind: AttentionKind, clock: Clock) -> str:
    """Return the name of the fastest kernel, forward and backward. Each must give the result of the first one.

    A line names each kernel that fails or differs, and the times.
    """
    first = next(iter(known))
    if len(known) == 1:
        return first
    with torch.inference_mode(False), torch.enable_grad():  # the first call may be one of generation
        given = *sample(kind, ROWS, LENGTH), LENGTH
        right = forward_and_backward(known[first], *given)
        times = {first: clock(lambda: forward_and_backward(known[first], *given))}
        for name, kernel in list(known.items())[1:]:
            try:
                off = max(map(_apart, forward_and_backward(kernel, *given), right))
                if off > TOLERANCE:
                    log.warning(f"attention by {name} is {off:.1%} off {first}'s on this GPU and is not used")
                    continue
                times[name] = clock(lambda one=kernel: forward_and_backward(one, *given))  # type: ignore[misc]
            except Exception as error:  # compilers of kernels raise what they like; torch's kernel serves as well
                log.warning(f"attention by {name} fails on this GPU: {first_line(error)}; {first}'s kernel attends")
    best = min(times, key=times.__getitem__)
    told = ", ".join(f"{name} {1000 * seconds:.2f} ms" for name, seconds in times.items())
    log.info(f"attention by {best}, the fastest of these ({ROWS} rows of {LENGTH:,} tokens): {told}")
    return best


def forward_and_backward(
    kernel: Kernel, query: Tensor, key: Tensor, value: Tensor, starts: Tensor, longest: int
) -> list[Tensor]:
    """Return the output and the gradients of query, key and value, for a gradient of ones."""
    out = kernel(query, key, value, starts, longest, None, None)
    return [out.detach(), *torch.autograd.grad(out, (query, key, value), torch.ones_like(out))]


def gpu_seconds(call: Callable[[], object]) -> float:
    """Return the median time of some calls on the current GPU, after one that compiles and warms up."""
    call()
    times: list[float] = []
    for _ in range(CALLS):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        begin.record()
        call()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) / 1000)
    return sorted(times)[CALLS // 2]


def sample(kind: AttentionKind, rows: int, length: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return random query, key, value and the starts of rows of this length, and leave other random numbers alone."""
    generator = torch.Generator(kind.device).manual_seed(0)
    query, key, value = (
        torch.randn(rows * length, heads, kind.d, generator=generator, device=kind.device, dtype=kind.dtype)
        for heads in (kind.heads, kind.kv_heads, kind.kv_heads)
    )
    starts = torch.arange(0, (rows + 1) * length, length, device=kind.device, dtype=torch.int32)
    return query.requires_grad_(), key.requires_grad_(), value.requires_grad_(), starts


def _flash_attn_4(
    query: Tensor, key: Tensor, value: Tensor, starts: Tensor, longest: int, scale: float | None, window: int | None
) -> Tensor:
    from flash_attn.cute import flash_attn_varlen_func  # type: ignore[import-not-found]

    band = (None, None) if window is None else (window - 1, 0)
    out = flash_attn_varlen_func(
        query, key, value, cu_seqlens_q=starts, cu_seqlens_k=starts, max_seqlen_q=longest, max_seqlen_k=longest,
        softmax_scale=scale, causal=True, window_size=band,
    )  # fmt: skip
    found: Tensor = out[0] if isinstance(out, tuple) else out  # some releases return the logsumexp as well
    return found


def _apart(one: Tensor, other: Tensor) -> float:
    """Return the norm of the difference, relative to the other's. Infinite for values that are not finite."""
    off = float((one.float() - other.float()).norm() / other.float().norm())
    return off if off == off else float("inf")


def first_line(error: Exception) -> str:
    """Return the kind of an error and the first line of its text."""
    text = str(error).strip().partition("\n")[0][:200]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
