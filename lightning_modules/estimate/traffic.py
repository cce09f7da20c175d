"""What a training step moves between devices, from shapes: bytes that each device sends, with ring collectives.

A ring all-gather or reduce-scatter of B bytes over n devices sends (n - 1) / n * B from each; an all-reduce is both.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn

from lightning_modules.net.think_net import ThinkNet


@dataclass(frozen=True)
class StepTraffic:
    """Bytes that a device sends in an optimizer step."""

    all_reduce: float = 0.0  # DDP: gradients of trained weights, once
    all_gather: float = 0.0  # FSDP2: weights, in each forward and backward pass
    reduce_scatter: float = 0.0  # FSDP2: gradients of trained weights, in each backward pass

    @property
    def total(self) -> float:
        return self.all_reduce + self.all_gather + self.reduce_scatter


def step_traffic(net: ThinkNet, devices: int, sharded: bool, accumulate: int = 1) -> StepTraffic:
    """Return the traffic of an optimizer step of `accumulate` micro-batches, for a net on any device, `meta` included.

    DDP waits with its all-reduce for the last micro-batch. FSDP2 (`sharded`) does everything in each of them: it
    gathers all weights forward, and the decoder layers once more backward, since the rest stays gathered.
    """
    ring = (devices - 1) / devices
    layers = {p for layer in net.causal_lm.base_model.layers for p in layer.parameters()}
    gradients = _bytes(p for p in net.parameters() if p.requires_grad)
    if not sharded:
        return StepTraffic(all_reduce=2 * ring * gradients)
    gathered = _bytes(net.parameters()) + _bytes(layers)
    return StepTraffic(
        all_gather=accumulate * ring * gathered,
        reduce_scatter=accumulate * ring * gradients,
    )


def _bytes(parameters: Iterable[nn.Parameter]) -> float:
    return float(sum(p.numel() * p.element_size() for p in parameters))
