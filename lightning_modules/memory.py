"""What a device holds of the model while it trains, from shapes alone: nothing is loaded.

Activations are not counted: they follow from the rows of a batch and their length.
"""

from collections.abc import Iterable
from dataclasses import dataclass, fields

import torch
from torch import nn

from lightning_modules.backbone import ThinkNet

MOMENTS = 2  # AdamW's running means of the gradient and of its square, as large as the tensor
# Of NormalFloat4 with double quantization: 4 bits a weight, 8 bits for the scale of each 64, and 32 for that of each 256
# of those (arXiv 2305.14314, section 3)
NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)


@dataclass(frozen=True)
class Held:
    """Bytes on the device that holds the most."""

    frozen: float  # weights of the base
    trained: float
    gradients: float
    moments: float  # of the optimizer
    gathered: float  # FSDP: what is put together while it computes, beyond the device's own shards

    @property
    def total(self) -> float:
        return sum(getattr(self, field.name) for field in fields(self))


def held(net: ThinkNet, devices: int = 1, sharded: bool = False, nf4: bool = False) -> Held:
    """For a net on any device, `meta` too. With DDP each of the devices holds all, with `sharded` its part."""
    layers = [set(layer.parameters()) for layer in net.causal_lm.base_model.layers]
    quantized = set(_linear_weights(net.causal_lm.base_model.layers)) if nf4 else set()
    parts = devices if sharded else 1

    def size(parameters: Iterable[nn.Parameter], parts: int = parts) -> float:
        """Each tensor is cut along its first dimension; the first device has no smaller part than the others."""
        return sum(
            -(-len(p) // parts) * (p.numel() / len(p)) * (NF4_BYTES if p in quantized else p.element_size())
            for p in parameters
        )

    everything = set(net.parameters())
    trained = {p for p in everything if p.requires_grad}
    gathered = 0.0
    if parts > 1:
        # All that is in no layer stays together through a step; of the layers one computes and the next is fetched
        computing = [everything - set().union(*layers), *sorted(layers, key=size)[-2:]]
        gathered = sum(size(group, 1) - size(group) for group in computing)
    return Held(size(everything - trained), size(trained), size(trained), MOMENTS * size(trained), gathered)


def _linear_weights(layers: nn.Module) -> list[nn.Parameter]:
    return [p for name, p in layers.named_parameters() if not p.requires_grad and p.ndim == 2]


def on_this_device(net: nn.Module, optimizer: torch.optim.Optimizer) -> Held:
    """The same as it is: of tensors that are there, a sharded one counting what this rank has of it."""

    def size(tensors: Iterable[torch.Tensor]) -> float:
        local = [t.to_local() if hasattr(t, "to_local") else t for t in tensors]
        return float(sum(t.numel() * t.element_size() for t in local))

    trained = [p for p in net.parameters() if p.requires_grad]
    moments = [state[name] for state in optimizer.state.values() for name in ("exp_avg", "exp_avg_sq")]
    frozen = [p for p in net.parameters() if not p.requires_grad]
    return Held(size(frozen), size(trained), size(p.grad for p in trained if p.grad is not None), size(moments), 0.0)
