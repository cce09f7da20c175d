"""Mixed precision: what products are in, what suits a CPU, and float16 for FSDP2: Lightning has no gradient scaler for
its ModelParallelStrategy, so it is brought along."""

import time

import torch
from lightning.pytorch.plugins.precision import MixedPrecision

MIXED = {"16-mixed": torch.float16, "bf16-mixed": torch.bfloat16}  # trainer.precision: what products are in

WORTH = 1.3  # times as fast, from which a change of precision is worth a line
WIDE = 512  # hidden size, from which products of matrices are most of a step
RUNS = 3


def bfloat16_gain() -> float:
    """How many times as fast as float32 this CPU multiplies bfloat16, forward and backward: measured, since there are
    CPUs that have instructions for it and are slower by them."""

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
    """What to say to one who trains with this `trainer.precision` on a CPU with that bfloat16_gain."""
    if precision == "32-true" and gain >= WORTH:
        way = "--trainer.precision bf16-mixed --model.dtype bfloat16"
        return f"this CPU multiplies bfloat16 {gain:.1f} times as fast as float32; {way} would use that"
    if precision == "bf16-mixed" and gain <= 1 / WORTH:
        way = "--trainer.precision 32-true --model.dtype float32"
        return f"this CPU multiplies float32 {1 / gain:.1f} times as fast as bfloat16; {way} would use that"
    return None


class ShardedHalfPrecision(MixedPrecision):
    """Autocast to float16 with a gradient scaler, over parameters that are sharded as DTensors.

    Each rank looks for overflows in its own shards; torch makes what it finds common to all of them, so that all skip a
    step or none does. What is trained stays float32, so gradients are unscaled in float32.
    """

    def __init__(self, device: str = "cuda", init_scale: float = 2.0**16) -> None:
        super().__init__("16-mixed", device, torch.amp.GradScaler(device, init_scale))
