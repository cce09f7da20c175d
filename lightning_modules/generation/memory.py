"""The memory of generation beside the net: copies of weights, and the cache. It decides how many sequences are written
at once, and whether weights are copied at all."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from lightning_modules.generation.token_choice import Request
from lightning_modules.internals.peft_internals import base_layer
from lightning_modules.internals.transformers_internals import decoder_layers, layer_parts

if TYPE_CHECKING:
    from lightning_modules.net.think_net import ThinkNet

ROWS = 64  # most sequences at once: more of them hardly save time, as reading the weights costs little by then
CACHE = 2.0  # most bytes of the cache, for each byte of the weights: a larger one costs more time than the weights
SMALLEST_CACHE = 2**28  # bytes that a cache may have in any case
ROOM = 1.1  # bytes that are wanted free, for each byte that is needed


def longest_of(requests: Sequence[Request], max_new_tokens: int) -> int:
    """Return the most tokens that a prompt and its response can have together."""
    limits = [max_new_tokens if one.limit is None else min(max_new_tokens, one.limit) for one in requests]
    return max(len(one.ids) + limit for one, limit in zip(requests, limits, strict=True))


def token_bytes(net: "ThinkNet") -> int:
    """Return the bytes of the cache for one token of one sequence."""
    layers = decoder_layers(net.causal_lm)
    _, key, value = (base_layer(module) for module in layer_parts(layers[0]).qkv)
    return int(len(layers) * (key.out_features + value.out_features) * key.weight.element_size())


def row_count(net: "ThinkNet", requests: Sequence[Request], max_new_tokens: int) -> int:
    """Return how many sequences are written at once, by the memory that the longest of them may need."""
    weights = sum(parameter.nbytes for parameter in net.causal_lm.parameters())
    longest = token_bytes(net) * longest_of(requests, max_new_tokens)
    fitting = max(CACHE * weights, SMALLEST_CACHE) // longest
    return int(max(1, min(ROWS, len(requests), fitting)))


def copied_bytes(net: "ThinkNet") -> int:
    """Return the bytes of the weights that FoldedWeights copies."""
    lm: Any = net.causal_lm
    groups = [group for layer in decoder_layers(lm) for group in layer_parts(layer).groups]
    head = lm.get_output_embeddings().weight
    if head.device.type == "cpu":
        return int(head.nbytes) + sum(base_layer(module).weight.nbytes for group in groups for module in group)
    adapted = [group for group in groups if any(base_layer(module) is not module for module in group)]
    return sum(base_layer(module).weight.nbytes for group in adapted for module in group)


def no_room_reason(net: "ThinkNet", cache: int) -> str | None:
    """Return why the weights cannot be copied beside a cache of this number of bytes; None if they can."""
    needed, free = copied_bytes(net) + cache, free_bytes(next(net.parameters()).device)
    if free is None or needed * ROOM <= free:
        return None
    return f"its copies of the weights and the cache need {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free"


def free_bytes(device: torch.device) -> int | None:
    """Return the bytes that are free on a device; None if this is not known."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + cached
    lines = Path("/proc/meminfo")
    if device.type != "cpu" or not lines.exists():
        return None
    available = next((line for line in lines.read_text().splitlines() if line.startswith("MemAvailable")), None)
    return int(available.split()[1]) * 1024 if available else None
