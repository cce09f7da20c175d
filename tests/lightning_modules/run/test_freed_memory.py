"""run/freed_memory.py: the heap of a fit on a CPU is trimmed now and then, and a GPU's fit is left alone."""

import ctypes
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lightning_modules.run.freed_memory import STEPS, FreedMemory


def trainer(device: str = "cpu", step: int = 0) -> Any:
    return SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device(device)), global_step=step)


def counting() -> tuple[FreedMemory, list[int]]:
    callback, calls = FreedMemory(), list[int]()
    callback._trim = calls.append
    return callback, calls


def test_the_heap_is_trimmed_every_few_steps_and_after_a_validation() -> None:
    callback, calls = counting()
    for step in range(1, 2 * STEPS + 1):
        for _ in range(2):  # micro-batches of a step
            callback.on_train_batch_end(trainer(step=step), None)  # type: ignore[arg-type]
    assert len(calls) == 2
    callback.on_validation_end(trainer(), None)  # type: ignore[arg-type]
    assert len(calls) == 3


def test_a_gpu_or_a_system_without_glibc_is_left_alone() -> None:
    callback, calls = counting()
    callback.trim(trainer("cuda"))
    assert not calls
    callback._trim = None
    callback.trim(trainer())


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="needs glibc's malloc_trim"
)
def test_freed_memory_in_the_middle_of_the_heap_is_returned() -> None:
    def resident() -> int:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * 4096

    pieces = [bytearray(b"x" * 100_000) for _ in range(1000)]  # below glibc's threshold for mappings of their own
    kept = pieces[::50]  # they hold the gaps apart
    before = resident()
    del pieces
    FreedMemory().trim(trainer())
    assert resident() < before - 50_000_000 and len(kept) == 20
