"""The FLOPs of a training step, and the peak FLOP/s of GPUs: together they give the model FLOPs utilization (MFU).

After PaLM, appendix B (arXiv 2204.02311): model FLOPs are the FLOPs that the task needs, not the FLOPs that a program
spends, so recomputed activations do not count. Adaptations to LoRA and to packed sequences:
- A weight costs 2 FLOPs per token in the forward pass, 2 for the gradient of its input, and 2 for its own gradient if
  it is trained: 6, or 4 for a frozen weight.
- The head counts for supervised positions only.
- Attention counts the pairs of a token and a token that it attends to, within its example and its sliding window. That
  is half of PaLM's square for one example as long as the context.
- Of a mixture of experts those count that a token is sent to.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from lightning_modules.internals.transformers_internals import decoder_layers, experts, sliding_windows

if TYPE_CHECKING:
    from lightning_modules.net.think_net import ThinkNet

# FLOP/s of dense matrix products in half precision with float32 accumulation, from NVIDIA's data sheets and white
# papers. Figures with sparsity are halved
PEAKS = {
    "H100 PCIe": 756e12, "H100 NVL": 835e12, "H100": 989e12, "H200": 989e12, "GH200": 989e12, "A100": 312e12,
    "A10": 125e12, "L40S": 362e12, "L40": 181e12, "L4": 121e12, "V100": 125e12, "T4": 65e12, "RTX 4090": 165e12,
    "RTX 3090": 71e12,
}  # fmt: skip
WITHOUT_BFLOAT16 = ("V100", "T4")  # float16 only


@dataclass(frozen=True)
class ModelShape:
    """The sizes that decide the FLOPs of a net."""

    frozen: int  # weights of frozen matrices in the decoder layers that a token is multiplied by
    trained: int  # the same of trained matrices
    head: int  # weights of the head
    head_trained: bool
    layers: int
    attention: int  # number of attention heads x width of a head
    windows: tuple[int, ...] = ()  # tokens in sight in each layer with a sliding window; other layers see all

    @classmethod
    def of(cls, net: "ThinkNet") -> "ModelShape":
        """Return the shape of a net, from the sizes of its matrices. Sharding and 4 bits do not change it."""
        lm, counts = net.causal_lm, {True: 0, False: 0}
        for layer in decoder_layers(lm):
            routed = experts(layer)
            of_experts = set() if routed is None else set(routed.module.modules())
            for module in layer.modules():
                for size, trained in _matrices(module):
                    if routed is not None and module in of_experts:
                        size = size * routed.per_token // routed.total
                    counts[trained] += size
        config, head = lm.config, lm.get_output_embeddings().weight
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        return cls(
            counts[False], counts[True], config.hidden_size * net.vocabulary, head.requires_grad,
            len(decoder_layers(lm)), config.num_attention_heads * width, sliding_windows(lm),
        )  # fmt: skip


def _matrices(module: nn.Module) -> Iterator[tuple[int, bool]]:
    """Yield the number of weights of each matrix that a module itself has, and whether it is trained."""
    if isinstance(module, nn.Linear):  # in 4 bits its weight has another shape
        yield module.in_features * module.out_features, module.weight.requires_grad
        return
    for parameter in module.parameters(recurse=False):
        if parameter.ndim > 1:
            yield parameter.numel(), parameter.requires_grad


def training_flops(shape: ModelShape, lengths: Sequence[int], supervised: int) -> float:
    """Return the FLOPs of a forward and backward pass over examples of these lengths with `supervised` tokens."""
    return sum(flops_by_part(shape, lengths, supervised).values())


def flops_by_part(shape: ModelShape, lengths: Sequence[int], supervised: int) -> dict[str, float]:
    """Return the same FLOPs for each part of the net."""
    tokens = sum(lengths)
    in_sight = [*shape.windows, *[max(lengths, default=0)] * (shape.layers - len(shape.windows))]
    pairs = {window: sum(_pairs(length, window) for length in lengths) for window in set(in_sight)}
    return {
        "frozen": 4.0 * shape.frozen * tokens,
        "trained": 6.0 * shape.trained * tokens,
        # Per pair and unit of width: 2 FLOPs for the score, 2 for the weighted value, twice as many for their gradients
        "attention": 12.0 * shape.attention * sum(pairs[window] for window in in_sight),
        "head": (6.0 if shape.head_trained else 4.0) * shape.head * supervised,
    }


def _pairs(length: int, window: int) -> int:
    """Return the number of pairs of a token and one of the `window` tokens that it sees, itself included."""
    seen = min(length, window)
    return seen * (seen + 1) // 2 + (length - seen) * window


def peak_flops(gpu: str, dtype: torch.dtype) -> float | None:
    """Return the peak FLOP/s of a GPU by its name, or None if the GPU or the dtype on it is not in PEAKS."""
    for name, flops in PEAKS.items():
        if re.search(rf"\b{name}\b", gpu) and "Laptop" not in gpu:
            supported = dtype == torch.float16 or (dtype == torch.bfloat16 and name not in WITHOUT_BFLOAT16)
            return flops if supported else None
    return None
