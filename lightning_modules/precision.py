"""Mixed precision: what products are in, and float16 for FSDP2: Lightning has no gradient scaler for its
ModelParallelStrategy, so it is brought along."""

import torch
from lightning.pytorch.plugins.precision import MixedPrecision

MIXED = {"16-mixed": torch.float16, "bf16-mixed": torch.bfloat16}  # trainer.precision: what products are in


class ShardedHalfPrecision(MixedPrecision):
    """Autocast to float16 with a gradient scaler, over parameters that are sharded as DTensors.

    Each rank looks for overflows in its own shards; torch makes what it finds common to all of them, so that all skip a
    step or none does. What is trained stays float32, so gradients are unscaled in float32.
    """

    def __init__(self, device: str = "cuda", init_scale: float = 2.0**16) -> None:
        super().__init__("16-mixed", device, torch.amp.GradScaler(device, init_scale))
