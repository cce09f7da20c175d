import logging
import sys
from collections.abc import Callable
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_modules.fused import flash_kernels, varlen_attention
from lightning_modules.fused.flash_kernels import AttentionKind, Kernel, fastest, kernel_of, kernels
from lightning_modules.fused.packed_forward import RowBounds
from lightning_modules.internals.torch_internals import flash_attention

KIND = AttentionKind(torch.device("cpu"), torch.float32, 2, 1, 4)


def by_rows(times: float = 1.0) -> Kernel:
    """A kernel for the CPU, with an error of this factor."""

    def kernel(
        q: Tensor, k: Tensor, v: Tensor, starts: Tensor, longest: int, scale: float | None, window: int | None
    ) -> Tensor:
        lengths = starts.diff().tolist()
        return varlen_attention.attend(q, k, v, RowBounds(starts, lengths), scale, window) * times

    return kernel


def clock(*seconds: float) -> Callable[[Callable[[], object]], float]:
    left = iter(seconds)

    def timed(call: Callable[[], object]) -> float:
        call()
        return next(left)

    return timed


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flash_kernels, "LENGTH", 16)


def test_the_faster_kernel_with_the_same_result_attends(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "thinkwright")
    both = {"torch": by_rows(), "new": by_rows(1.001)}
    assert fastest(both, KIND, clock(2.0, 1.0)) == "new"
    assert fastest(both, KIND, clock(1.0, 2.0)) == "torch"
    assert (
        "attention by new, the fastest of these (8 rows of 16 tokens): torch 2000.00 ms, new 1000.00 ms" in caplog.text
    )


def test_a_faster_kernel_with_another_result_is_not_used(caplog: pytest.LogCaptureFixture) -> None:
    assert fastest({"torch": by_rows(), "new": by_rows(1.05)}, KIND, clock(2.0, 1.0)) == "torch"
    assert "attention by new is 5.0% off torch's on this GPU and is not used" in caplog.text
    caplog.clear()
    assert fastest({"torch": by_rows(), "new": by_rows(float("nan"))}, KIND, clock(2.0, 1.0)) == "torch"
    assert "is inf% off" in caplog.text


def test_wrong_gradients_are_seen() -> None:
    def no_gradient_of_keys(q: Tensor, k: Tensor, *more: Any) -> Tensor:
        return by_rows()(q, 2 * k.detach() - k, *more) * 0 + by_rows()(q, k.detach() + 0 * k, *more)

    assert fastest({"torch": by_rows(), "new": no_gradient_of_keys}, KIND, clock(2.0, 1.0)) == "torch"


def test_a_kernel_that_fails_leaves_attention_to_torch_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    def broken(*args: Any) -> Tensor:
        raise AssertionError("Unsupported compute capability\nand a long trace")

    assert fastest({"torch": by_rows(), "new": broken}, KIND, clock(1.0)) == "torch"
    line = "attention by new fails on this GPU: AssertionError: Unsupported compute capability; torch's kernel attends"
    assert caplog.messages[0] == line


def test_the_choice_works_within_generation_and_leaves_random_numbers_alone() -> None:
    state = torch.get_rng_state()
    with torch.inference_mode():
        assert fastest({"torch": by_rows(), "new": by_rows()}, KIND, clock(2.0, 1.0)) == "new"
    assert torch.equal(state, torch.get_rng_state())


def test_without_the_package_nothing_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flash_kernels, "find_spec", lambda name: None)
    assert list(kernels()) == ["torch"]
    kernel_of.cache_clear()
    assert kernel_of(KIND) is flash_attention
    kernel_of.cache_clear()


def test_a_flash_attn_that_cannot_be_imported_is_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(name: str) -> None:
        raise ImportError("undefined symbol: _ZN3c10")

    monkeypatch.setattr(flash_kernels, "find_spec", fails)
    assert list(kernels()) == ["torch"]
    assert "flash-attn cannot be used: ImportError: undefined symbol: _ZN3c10; torch's kernel attends" in caplog.text


@pytest.mark.parametrize("window", [None, 4])
def test_flash_attn_4_is_called_with_the_bounds_of_rows(monkeypatch: pytest.MonkeyPatch, window: int | None) -> None:
    """The package needs a GPU; a stand-in takes its place and returns what was given."""
    given: dict[str, Any] = {}

    def flash_attn_varlen_func(q: Tensor, k: Tensor, v: Tensor, **more: Any) -> tuple[Tensor, None]:
        given.update(more)
        return q, None

    monkeypatch.setitem(sys.modules, "flash_attn", SimpleNamespace())
    cute = SimpleNamespace(flash_attn_varlen_func=flash_attn_varlen_func)
    monkeypatch.setitem(sys.modules, "flash_attn.cute", cute)
    monkeypatch.setattr(flash_kernels, "find_spec", lambda name: cute)
    q, starts = torch.ones(4, 2, 4), torch.tensor([0, 1, 4], dtype=torch.int32)
    assert kernels()["flash-attn-4"](q, q, q, starts, 3, 0.5, window) is q
    assert given["cu_seqlens_q"] is given["cu_seqlens_k"] is starts
    assert given["max_seqlen_q"] == given["max_seqlen_k"] == 3
    assert given["softmax_scale"] == 0.5 and given["causal"] is True
    assert given["window_size"] == ((None, None) if window is None else (3, 0))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", varlen_attention.HALF, ids=str)
def test_flash_attn_4_gives_what_torch_gives_on_this_gpu(dtype: torch.dtype, caplog: pytest.LogCaptureFixture) -> None:
    if find_spec("flash_attn") is None:
        pytest.skip("flash-attn-4 is not installed")
    caplog.set_level(logging.INFO, "thinkwright")
    kind = AttentionKind(torch.device("cuda"), dtype, 16, 16, 128)
    fastest(kernels(), kind, flash_kernels.gpu_seconds)
    assert "flash-attn-4" in caplog.text and "fails" not in caplog.text and "off" not in caplog.text
