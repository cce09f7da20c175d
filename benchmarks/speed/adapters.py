"""Adapters that start alike on every side, whatever random numbers each has drawn before."""

import math
import zlib
from typing import Any

TAGS = "<think>", "</think>"


def same_start(module: Any) -> int:
    """Sets the A matrices of LoRA, uniform as peft draws them, by their layer's name; B is 0 already. Says how many."""
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
