"""The memory of a device at the peak of a training step, from shapes: no weight is loaded.

Weights, gradients and the optimizer's moments are counted here; the rest by the dry run of fake_step.py.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from datamodules.tokens.tokenizer import ThinkTokenizer
from errors import UserError
from hub import model_folder
from lightning_modules.estimate.fake_step import WorkingMemory, dry_run
from lightning_modules.net.activation_checkpointing import checkpoint_activations
from lightning_modules.net.base_model import needs_own_code, own_code_refused
from lightning_modules.net.think_net import ThinkNet
from lightning_modules.think_tuner import ThinkTuner

MOMENTS = 2  # AdamW keeps running means of the gradient and of its square, each of the size of the weights
# Bytes per weight of NormalFloat4 with double quantization: 4 bits, an 8-bit scale for 64 weights, and a 32-bit scale
# for 256 of these scales (arXiv 2305.14314, section 3)
NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)


@dataclass(frozen=True)
class HeldMemory:
    """Bytes that the device with the most memory in use holds through a step."""

    frozen: float  # weights without gradients
    trained: float  # weights with gradients
    gradients: float
    moments: float  # of the optimizer
    gathered: float  # FSDP2: weights gathered for computing, beyond the device's own shard

    @property
    def total(self) -> float:
        return self.frozen + self.trained + self.gradients + self.moments + self.gathered


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes on the device with the most memory in use, for the largest batch."""

    held: HeldMemory
    working: WorkingMemory
    scratch: float  # temporary tensors of the optimizer
    dequantized: float  # the largest 4-bit weight, while it is multiplied

    def parts(self) -> dict[str, float]:
        """Return label -> bytes. The last three are never held together."""
        held, working = self.held, self.working
        return {
            "frozen base": held.frozen,
            "trained": held.trained,
            "optimizer": held.moments,
            "gradients": held.gradients,
            "gathered by FSDP": held.gathered,
            "activations": working.activations,
            "optimizer's step": self.scratch,
            "logits chunk": working.loss + self.dequantized,
            "backward pass of a layer": working.backward + self.dequantized,
        }

    @property
    def total(self) -> float:
        """The peak: in the forward or backward pass, or in the optimizer's step, when no activations are left."""
        held = self.held
        passes = self.working.peak + self.dequantized
        optimizer_step = held.gradients + self.scratch
        return held.frozen + held.trained + held.moments + held.gathered + max(passes, optimizer_step)


@dataclass(frozen=True)
class StepShape:
    """The shape of an optimizer step, and where it is computed."""

    batch_size: int  # examples of a micro-batch
    max_length: int  # tokens of each example
    on_gpu: bool = False
    autocast: torch.dtype | None = None
    accumulate: int = 1  # micro-batches of an optimizer step


def estimate_memory(
    net: ThinkNet, step: StepShape, counts: Sequence[int] = (1,), sharded: bool = False, nf4: bool = False
) -> dict[int, MemoryEstimate]:
    """Return the estimate for each number of devices, with all tokens supervised. `sharded`: by FSDP2. `nf4`: the base
    is quantized to 4 bits. The net is on `meta`; its tensors are fake ones afterwards."""
    on_cpu_scratch = 2 * max(4.0 * p.numel() for p in net.parameters() if p.requires_grad)
    # A 4-bit weight is dequantized as a whole for its product
    dequantized = max(map(_size, _linear_weights(net.causal_lm.base_model.layers))) if nf4 else 0.0
    # On a GPU one kernel computes the attention of all examples together
    lengths = [step.batch_size * step.max_length] if step.on_gpu else [step.max_length] * step.batch_size
    held = {devices: held_memory(net, devices, sharded, nf4) for devices in counts}
    working = dry_run(net, lengths, step.autocast, step.accumulate, step.on_gpu)
    # AdamW is fused under the same conditions as in think_tuner.py
    fused_optimizer = step.on_gpu and step.autocast != torch.float16 and not sharded

    def scratch(part: HeldMemory) -> float:
        """AdamW's temporary tensors: of one weight at a time on a CPU, of all weights on a GPU, none if fused."""
        return 0.0 if fused_optimizer else part.trained if step.on_gpu else on_cpu_scratch

    return {devices: MemoryEstimate(part, working, scratch(part), dequantized) for devices, part in held.items()}


def _size(tensor: torch.Tensor) -> float:
    return float(tensor.numel() * tensor.element_size())


def net_on_meta(tuner: ThinkTuner) -> ThinkNet:
    """Return the net that a tuner would build, on `meta`: shapes without memory."""
    from transformers import AutoConfig, AutoModelForCausalLM

    tokenizer = ThinkTokenizer.load(tuner.name, tuner.revision, tuner.tags, tuner.new_tokens)
    trust, fused = tuner.trust_remote_code, tuner.quantize is None  # a quantized base has no fused layers
    folder = model_folder(tuner.name, tuner.revision, code=trust)
    with torch.device("meta"):  # this net is never quantized
        try:
            config = AutoConfig.from_pretrained(folder, trust_remote_code=trust)
            dtype = getattr(torch, tuner.dtype_name)
            base = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=trust)
        except Exception as error:  # OSError, ValueError, KeyError: depends on the damage
            if needs_own_code(error):
                raise own_code_refused(tuner.name) from error
            problem = f"has a config.json of no model ({type(error).__name__}: {' '.join(str(error).split())[:160]})"
            raise UserError("model.name", tuner.name, problem, "give the folder of a transformers model") from error
        checkpoint_activations(base, tuner.gradient_checkpointing)
        lora = tuner.lora and tuner.lora.without_init()
        return ThinkNet(base, tokenizer, lora, role_weights=tuner.role_weights, fused=fused)


def held_memory(net: ThinkNet, devices: int = 1, sharded: bool = False, nf4: bool = False) -> HeldMemory:
    """Return the held memory for a net on any device, `meta` included. With DDP each device holds everything, with
    `sharded` its part."""
    layers = [set(layer.parameters()) for layer in net.causal_lm.base_model.layers]
    quantized = set(_linear_weights(net.causal_lm.base_model.layers)) if nf4 else set()
    parts = devices if sharded else 1

    def size(parameters: Iterable[nn.Parameter], parts: int = parts) -> float:
        """Bytes on the first device. FSDP2 splits each tensor along its first dimension, and no device holds more."""
        widths = {p: NF4_BYTES if p in quantized else p.element_size() for p in parameters}
        return float(sum(-(-len(p) // parts) * (p.numel() / len(p)) * width for p, width in widths.items()))

    everything = set(net.parameters())
    trained = {p for p in everything if p.requires_grad}
    gathered = 0.0
    if parts > 1:
        # Tensors outside the layers stay gathered for the whole step; one layer computes while the next is fetched
        computing = [everything - set().union(*layers), *sorted(layers, key=size)[-2:]]
        gathered = sum(size(group, 1) - size(group) for group in computing)
    return HeldMemory(size(everything - trained), size(trained), size(trained), MOMENTS * size(trained), gathered)


def _linear_weights(layers: nn.Module) -> list[nn.Parameter]:
    return [p for name, p in layers.named_parameters() if not p.requires_grad and p.ndim == 2]


def measured_held_memory(net: nn.Module, optimizer: torch.optim.Optimizer) -> HeldMemory:
    """Return the same for existing tensors. Of a sharded tensor the part of this rank counts."""

    def size(tensors: Iterable[torch.Tensor]) -> float:
        local = [t.to_local() if hasattr(t, "to_local") else t for t in tensors]
        return float(sum(t.numel() * t.element_size() for t in local))

    trained = [p for p in net.parameters() if p.requires_grad]
    moments = [state[name] for state in optimizer.state.values() for name in ("exp_avg", "exp_avg_sq")]
    frozen = [p for p in net.parameters() if not p.requires_grad]
    return HeldMemory(
        size(frozen), size(trained), size(p.grad for p in trained if p.grad is not None), size(moments), 0.0
    )
