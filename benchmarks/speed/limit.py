"""The FLOPs of a step, the least time for them at the machine's measured rate of matrix products, and MFU.

FLOPs and peaks come from lightning_modules/run/flops.py. `palm` counts as PaLM does (appendix B, arXiv 2204.02311):
6 FLOPs for every parameter and token of decoder and head, and 12 layers x width x length of attention per token. That
is more than this project computes.
"""

import json
import time
from pathlib import Path
from typing import Any

from lightning_modules.run.flops import ModelShape, flops_by_part

RUNS = 5
# Positions of a chunk of logits; the fastest number depends on the caches
HEAD_POSITIONS = {"cpu": (64, 128, 256, 512), "cuda": (1024, 4096)}

Config = dict[str, Any]


def read_config(folder: Path | str) -> Config:
    config: Config = json.loads((Path(folder) / "config.json").read_text())
    return config


def linear_layers(config: Config) -> dict[str, tuple[int, int]]:
    """Return name -> (inputs, outputs) of the linear layers of one decoder layer."""
    width, inner = config["hidden_size"], config["intermediate_size"]
    kv = width // config["num_attention_heads"] * config["num_key_value_heads"]
    return {
        "q_proj": (width, width), "k_proj": (width, kv), "v_proj": (width, kv), "o_proj": (width, width),
        "gate_proj": (width, inner), "up_proj": (width, inner), "down_proj": (inner, width),
    }  # fmt: skip


def needed(config: Config, lengths: list[int], supervised: int, rank: int, targets: list[str]) -> dict[str, float]:
    """Return part -> FLOPs of one step, with a frozen head and LoRA of this rank on the layers in `targets`."""
    layers, linear, width = config["num_hidden_layers"], linear_layers(config), config["hidden_size"]
    frozen = layers * sum(i * o for i, o in linear.values())
    trained = layers * rank * sum(sum(linear[name]) for name in targets)
    shape = ModelShape(frozen, trained, config["vocab_size"] * width, False, layers, width)
    return flops_by_part(shape, lengths, supervised)


def palm(config: Config, lengths: list[int]) -> float:
    """Return the FLOPs of one step by PaLM's formula."""
    layers, width = config["num_hidden_layers"], config["hidden_size"]
    weights = layers * sum(i * o for i, o in linear_layers(config).values()) + config["vocab_size"] * width
    return float(sum(t * (6.0 * weights + 12.0 * layers * width * t) for t in lengths))


def rates(task: dict[str, Any]) -> dict[str, float]:
    """Measure the FLOP/s of products in the model's shapes: `body` with the tokens of a step, `head` with a chunk.

    Each shape: the best of RUNS, forward and for the gradient of the inputs, into allocated memory.
    """
    import torch

    config, tokens = read_config(task["model"]), max(sum(step) for step in task["lengths"])
    device, dtype = torch.device(task["device"]), getattr(torch, task["dtype"])

    def seconds(positions: int, inputs: int, outputs: int) -> float:
        weight = torch.randn(outputs, inputs, device=device, dtype=dtype)
        x, y = (torch.randn(positions, n, device=device, dtype=dtype) for n in (inputs, outputs))
        forward, backward = torch.empty_like(y), torch.empty_like(x)  # so that allocation is not timed
        best = [float("inf")] * 2
        for _ in range(RUNS):
            for k, (a, b, out) in enumerate(((x, weight.T, forward), (y, weight, backward))):
                started = _now(device)
                torch.mm(a, b, out=out)
                best[k] = min(best[k], _now(device) - started)
        return sum(best)

    with torch.no_grad():
        linear = linear_layers(config)
        each = {shape: seconds(tokens, *shape) for shape in set(linear.values())}
        body = sum(4.0 * tokens * i * o for i, o in linear.values()) / sum(each[s] for s in linear.values())
        width, vocabulary, chunks = config["hidden_size"], config["vocab_size"], HEAD_POSITIONS[device.type]
        head = max(4.0 * n * width * vocabulary / seconds(n, width, vocabulary) for n in chunks)
    return {"body": body, "head": head}


def least_seconds(flops: dict[str, float], rate: dict[str, float]) -> float:
    return sum(flops[name] / rate["head" if name == "head" else "body"] for name in flops)


def _now(device: Any) -> float:
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()
