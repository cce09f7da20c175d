"""What a device holds while it trains, from shapes alone: nothing is loaded.

Weights, gradients and moments are counted here, what a step needs beside them in rehearsal.py.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from datamodules.tokens.tokenizer import ThinkTokenizer
from hub import model_folder
from lightning_modules.estimate.fake_step import WorkingMemory, dry_run
from lightning_modules.net.activation_checkpointing import checkpoint_activations
from lightning_modules.net.think_net import ThinkNet
from lightning_modules.think_tuner import ThinkTuner

MOMENTS = 2  # AdamW's running means of the gradient and of its square, as large as the tensor
# Of NormalFloat4 with double quantization: 4 bits a weight, 8 bits for the scale of each 64, 32 bits for that of each
# 256 of those (arXiv 2305.14314, section 3)
NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)


@dataclass(frozen=True)
class HeldMemory:
    """Bytes on the device that holds the most."""

    frozen: float  # weights of the base
    trained: float
    gradients: float
    moments: float  # of the optimizer
    gathered: float  # FSDP: what is put together while it computes, beyond the device's own shards

    @property
    def total(self) -> float:
        return self.frozen + self.trained + self.gradients + self.moments + self.gathered


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes on the device that holds the most, for batches as large as they can be."""

    held: HeldMemory
    working: WorkingMemory
    scratch: float  # of the optimizer's step
    unpacked: float  # of the largest weight that is held in 4 bits

    def parts(self) -> dict[str, float]:
        """What a table shows. Of the last three only one is there at a time."""
        held, working = self.held, self.working
        return {
            "frozen base": held.frozen,
            "trained": held.trained,
            "optimizer": held.moments,
            "gradients": held.gradients,
            "gathered by FSDP": held.gathered,
            "activations": working.activations,
            "optimizer's step": self.scratch,
            "logits chunk": working.loss + self.unpacked,
            "backward pass of a layer": working.backward + self.unpacked,
        }

    @property
    def total(self) -> float:
        """At the peak: in the forward or backward pass, or while the optimizer steps and no activations are left."""
        held = self.held
        computing = self.working.peak + self.unpacked
        stepping = held.gradients + self.scratch
        return held.frozen + held.trained + held.moments + held.gathered + max(computing, stepping)


@dataclass(frozen=True)
class Steps:
    """How a fit steps, as far as memory goes."""

    rows: int  # of a batch
    length: int  # of each row, in tokens; the most there can be
    on_gpu: bool = False
    autocast: torch.dtype | None = None
    accumulate: int = 1  # batches of an optimizer step


def estimate_memory(
    net: ThinkNet, steps: Steps, counts: Sequence[int] = (1,), sharded: bool = False, nf4: bool = False
) -> dict[int, MemoryEstimate]:
    """For each number of devices; `net` is on `meta`, and no more after. All tokens count as supervised."""
    on_cpu_scratch = 2 * max(4.0 * p.numel() for p in net.parameters() if p.requires_grad)
    # A matrix that is held in 4 bits is whole while it is multiplied
    unpacked = max(map(_size, _linear_weights(net.causal_lm.base_model.layers))) if nf4 else 0.0
    # On a GPU one kernel takes the attention of all rows at once
    lengths = [steps.rows * steps.length] if steps.on_gpu else [steps.length] * steps.rows
    parts = {devices: held(net, devices, sharded, nf4) for devices in counts}
    working = dry_run(net, lengths, steps.autocast, steps.accumulate, steps.on_gpu)
    fused = steps.on_gpu and steps.autocast != torch.float16 and not sharded  # as think_tuner.py builds the optimizer

    def scratch(part: HeldMemory) -> float:
        """AdamW's square root, and that divided: of one tensor at a time on a CPU, of all at once on a GPU."""
        return 0.0 if fused else part.trained if steps.on_gpu else on_cpu_scratch

    return {devices: MemoryEstimate(part, working, scratch(part), unpacked) for devices, part in parts.items()}


def _size(tensor: torch.Tensor) -> float:
    return float(tensor.numel() * tensor.element_size())


def shapes_of(tuner: ThinkTuner) -> ThinkNet:
    """The net that a tuner would build, on `meta`: without memory for its weights."""
    from transformers import AutoConfig, AutoModelForCausalLM

    tokenizer = ThinkTokenizer.load(tuner.name, tuner.revision, tuner.tags, tuner.new_tokens)
    config = AutoConfig.from_pretrained(model_folder(tuner.name, tuner.revision))
    fused = tuner.quantize is None  # layers in 4 bits, which these are not here, compute otherwise
    with torch.device("meta"):
        base = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, tuner.dtype_name))
        checkpoint_activations(base, tuner.gradient_checkpointing)
        lora = tuner.lora and tuner.lora.without_init()
        return ThinkNet(base, tokenizer, lora, role_weights=tuner.role_weights, fused=fused)


def held(net: ThinkNet, devices: int = 1, sharded: bool = False, nf4: bool = False) -> HeldMemory:
    """For a net on any device, `meta` too. With DDP each of the devices holds all, with `sharded` its part."""
    layers = [set(layer.parameters()) for layer in net.causal_lm.base_model.layers]
    quantized = set(_linear_weights(net.causal_lm.base_model.layers)) if nf4 else set()
    parts = devices if sharded else 1

    def size(parameters: Iterable[nn.Parameter], parts: int = parts) -> float:
        """Each tensor is cut along its first dimension; the first device has no smaller part than the others."""
        widths = {p: NF4_BYTES if p in quantized else p.element_size() for p in parameters}
        return float(sum(-(-len(p) // parts) * (p.numel() / len(p)) * width for p, width in widths.items()))

    everything = set(net.parameters())
    trained = {p for p in everything if p.requires_grad}
    gathered = 0.0
    if parts > 1:
        # All that is in no layer stays together through a step; of the layers one computes and the next is fetched
        computing = [everything - set().union(*layers), *sorted(layers, key=size)[-2:]]
        gathered = sum(size(group, 1) - size(group) for group in computing)
    return HeldMemory(size(everything - trained), size(trained), size(trained), MOMENTS * size(trained), gathered)


def _linear_weights(layers: nn.Module) -> list[nn.Parameter]:
    return [p for name, p in layers.named_parameters() if not p.requires_grad and p.ndim == 2]


def on_this_device(net: nn.Module, optimizer: torch.optim.Optimizer) -> HeldMemory:
    """The same as it is: of tensors that are there, a sharded one counting what this rank has of it."""

    def size(tensors: Iterable[torch.Tensor]) -> float:
        local = [t.to_local() if hasattr(t, "to_local") else t for t in tensors]
        return float(sum(t.numel() * t.element_size() for t in local))

    trained = [p for p in net.parameters() if p.requires_grad]
    moments = [state[name] for state in optimizer.state.values() for name in ("exp_avg", "exp_avg_sq")]
    frozen = [p for p in net.parameters() if not p.requires_grad]
    return HeldMemory(
        size(frozen), size(trained), size(p.grad for p in trained if p.grad is not None), size(moments), 0.0
    )
