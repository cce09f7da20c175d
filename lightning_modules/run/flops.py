"""What a training step has to compute, and what share of a GPU's peak that is.

After PaLM, appendix B (arXiv 2204.02311): model FLOPs are those that the task asks for, not those that a program
spends, so recomputing activations does not count. Adapted to what is trained here: a weight costs 2 FLOPs a token in
the forward pass, 2 for the gradient of its input, and 2 for its own gradient only if it is trained (a frozen base: 4,
not 6); the head counts for supervised positions alone; and attention counts the pairs of tokens that may see each
other, within a row and backwards, half of PaLM's square.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from lightning_modules.net.think_net import ThinkNet

# FLOPs a second of dense products in half precision, summed in float32, by NVIDIA's data sheets and white papers; where
# they give the figure with sparsity, half of it. V100 and T4 have float16 only
PEAKS = {
    "H100 PCIe": 756e12, "H100 NVL": 835e12, "H100": 989e12, "H200": 989e12, "GH200": 989e12, "A100": 312e12,
    "A10": 125e12, "L40S": 362e12, "L40": 181e12, "L4": 121e12, "V100": 125e12, "T4": 65e12, "RTX 4090": 165e12,
    "RTX 3090": 71e12,
}  # fmt: skip
WITHOUT_BFLOAT16 = ("V100", "T4")


@dataclass(frozen=True)
class Shape:
    """What of a net its FLOPs follow from."""

    frozen: int  # weights of the layers' matrices
    trained: int
    head: int  # weights of the head
    head_trained: bool
    layers: int
    attention: int  # heads x their width

    @classmethod
    def of(cls, net: "ThinkNet") -> "Shape":
        """By the widths of its linear layers: whole however their weights are sharded or packed."""
        lm, counts = net.causal_lm, {True: 0, False: 0}
        for module in lm.base_model.layers.modules():
            if isinstance(module, nn.Linear):
                counts[module.weight.requires_grad] += module.in_features * module.out_features
        config, head = lm.config, lm.get_output_embeddings().weight
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        return cls(
            counts[False], counts[True], config.hidden_size * net.vocabulary, head.requires_grad,
            len(lm.base_model.layers), config.num_attention_heads * width,
        )  # fmt: skip


def training_flops(shape: Shape, lengths: Sequence[int], supervised: int) -> float:
    """Forward and backward pass over rows of these lengths, of whose tokens `supervised` have a loss."""
    return sum(flops_by_part(shape, lengths, supervised).values())


def flops_by_part(shape: Shape, lengths: Sequence[int], supervised: int) -> dict[str, float]:
    """The same of the layers' frozen and trained weights, attention and the head."""
    tokens = sum(lengths)
    pairs = sum(length * (length + 1) // 2 for length in lengths)
    return {
        "frozen": 4.0 * shape.frozen * tokens,
        "trained": 6.0 * shape.trained * tokens,
        # A pair: 2 FLOPs a unit of width for its score and 2 for its value, and twice that for their gradients
        "attention": 12.0 * shape.layers * shape.attention * pairs,
        "head": (6.0 if shape.head_trained else 4.0) * shape.head * supervised,
    }


def peak_flops(gpu: str, dtype: torch.dtype) -> float | None:
    """Of a GPU by its name; None where that, or the dtype on it, is not known."""
    for name, flops in PEAKS.items():
        if re.search(rf"\b{name}\b", gpu) and "Laptop" not in gpu:
            known = dtype == torch.float16 or (dtype == torch.bfloat16 and name not in WITHOUT_BFLOAT16)
            return flops if known else None
    return None
