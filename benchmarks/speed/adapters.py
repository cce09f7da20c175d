"""The same initial adapters for every side, independent of the random numbers drawn before."""

import math
import zlib
from typing import Any

TAGS = "<think>", "</think>"


def same_start(module: Any) -> int:
    """Set the A matrices of LoRA from a seed of their layer's name, with peft's distribution. Return their number.

    B matrices are 0 already.
    """
    import torch

    found = 0
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if ".lora_A." not in name:
                continue
            generator = torch.Generator().manual_seed(zlib.crc32(name[name.index("layers.") :].encode()))
            bound = 1 / math.sqrt(parameter.shape[1])
            start = (torch.rand(parameter.shape, generator=generator) * 2 - 1) * bound
            parameter.copy_(start)
            found += 1
    return found
