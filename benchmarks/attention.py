"""Time attention, forward and backward, by each kernel that is installed, on packed rows.

    python -m benchmarks.attention [--device cuda|cpu] [--heads 16] [--kv-heads 16] [--width 128] [--tokens 16384]

On a GPU these are the kernels among which a fit chooses (lightning_modules/fused/flash_kernels.py), in bfloat16 and
float16. On a CPU it is torch's causal attention, one row after another. TFLOP/s counts causal attention as half of the
full matrix, and the backward pass as 2.5 forward passes, as the authors of flash attention do (arXiv 2307.08691).
"""

import argparse
import statistics
import time
from collections.abc import Callable, Mapping

import torch

from lightning_modules.fused.flash_kernels import (
    AttentionKind,
    Kernel,
    first_line,
    forward_and_backward,
    gpu_seconds,
    kernels,
    sample,
)
from lightning_modules.fused.packed_forward import RowBounds
from lightning_modules.fused.varlen_attention import HALF, attend

LENGTHS = (4096, 2048, 512, 128)  # of the rows; the packs have as many of them as fit
CALLS = 5


def by_rows(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, starts: torch.Tensor, longest: int,
    scale: float | None, window: int | None,
) -> torch.Tensor:  # fmt: skip
    """Attention on a CPU, with the arguments of a GPU's kernel."""
    return attend(query, key, value, RowBounds(starts, starts.diff().tolist()), scale, window)


def cpu_seconds(call: Callable[[], object]) -> float:
    call()
    times = []
    for _ in range(CALLS):
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def measure(known: Mapping[str, Kernel], kind: AttentionKind, tokens: int, length: int) -> None:
    """Print a line for each kernel."""
    given = *sample(kind, tokens // length, length), length
    seconds_of = gpu_seconds if kind.device.type == "cuda" else cpu_seconds
    flops = 3.5 * 2 * tokens * length * kind.heads * kind.d
    dtype = str(kind.dtype).removeprefix("torch.")
    for name, kernel in known.items():

        def call(kernel: Kernel = kernel) -> None:
            forward_and_backward(kernel, *given)

        try:
            seconds = seconds_of(call)
        except Exception as error:  # a kernel that this GPU cannot run; the others are measured
            print(f"| {name} | {length:,} | {dtype} | failed: {first_line(error)} | |", flush=True)
            continue
        rate = f"{flops / seconds / 1e12:.2f}"
        print(f"| {name} | {length:,} | {dtype} | {1000 * seconds:.2f} | {rate} |", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.attention", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    found = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", choices=("cuda", "cpu"), default=found)
    parser.add_argument("--heads", type=int, default=16, help="query heads; the default is Qwen1.5-1.8B's")
    parser.add_argument("--kv-heads", type=int, default=16)
    parser.add_argument("--width", type=int, default=128, help="of a head")
    parser.add_argument("--tokens", type=int, default=16384, help="of a pack, a multiple of 4096")
    given = parser.parse_args()
    on_gpu = given.device == "cuda"
    known = kernels() if on_gpu else {"torch, row by row": by_rows}
    print("| kernel | tokens a row | dtype | ms, forward and backward | TFLOP/s |\n|---|---|---|---|---|")
    for length in LENGTHS:
        for dtype in HALF if on_gpu else (torch.float32, torch.bfloat16):
            kind = AttentionKind(torch.device(given.device), dtype, given.heads, given.kv_heads, given.width)
            measure(known, kind, given.tokens, length)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
