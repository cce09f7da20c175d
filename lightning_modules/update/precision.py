"""Mixed precision: dtypes of matrix products, advice for CPUs, and float16 with a gradient scaler for FSDP2."""

import time

import torch
from lightning.pytorch.plugins.precision import MixedPrecision

MIXED = {"16-mixed": torch.float16, "bf16-mixed": torch.bfloat16}  # trainer.precision -> dtype of matrix products

WORTH = 1.3  # a speed-up from which a change of precision is worth a line
WIDE = 512  # hidden size from which matrix products take most of a step
RUNS = 3


def bfloat16_gain() -> float:
    """Return the speed of bfloat16 products on this CPU, as a multiple of float32, forward and backward.

    It is measured, because some CPUs have bfloat16 instructions that are slower than float32.
    """

    def seconds(dtype: torch.dtype) -> float:
        x, weight = torch.ones(256, 512, dtype=dtype), torch.ones(512, 512, dtype=dtype)
        took = []
        for _ in range(RUNS):
            started = time.perf_counter()
            x @ weight.T @ weight
            took.append(time.perf_counter() - started)
        return min(took)

    return seconds(torch.float32) / seconds(torch.bfloat16)


def advice_for_cpu(precision: str, gain: float) -> str | None:
    """Return a line of advice for a `trainer.precision` on a CPU with a `gain` from bfloat16_gain; None if it suits."""
    if precision == "32-true" and gain >= WORTH:
        way = "--trainer.precision bf16-mixed --model.dtype bfloat16"
        return f"this CPU multiplies bfloat16 {gain:.1f} times as fast as float32: add {way}"
    if precision == "bf16-mixed" and gain <= 1 / WORTH:
        way = "--trainer.precision 32-true --model.dtype float32"
        return f"this CPU multiplies float32 {1 / gain:.1f} times as fast as bfloat16: add {way}"
    return None


class ShardedHalfPrecision(MixedPrecision):
    """Autocast to float16 with a gradient scaler, for parameters that are sharded as DTensors.

    Lightning has no gradient scaler for its ModelParallelStrategy. Each rank finds overflows in its own shards, and torch
    combines the result, so all ranks skip a step or none. Trained parameters are float32, so gradients are, too.
    """

    def __init__(self, device: str = "cuda", init_scale: float = 2.0**16) -> None:
        super().__init__("16-mixed", device, torch.amp.GradScaler(device, init_scale))
