"""The memory of a forward and backward pass, by a dry run on fake tensors.

Fake tensors have a shape and a dtype, but no memory. The net runs on them unchanged, with its adapters, its activation
checkpointing and its fused layers, and every allocation is counted until it is freed. So nothing here depends on how a
layer computes. Memory inside kernels is not counted. The fake device is always a CPU, because torch without CUDA has no
fake CUDA device; for a GPU the loss uses the chunks that it would use there.
"""

import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from datamodules.batches.collate import Batch
from datamodules.text.segments import Role
from lightning_modules.internals.torch_internals import fake_tensors, observe_results
from lightning_modules.net import loss
from lightning_modules.net.think_net import ThinkNet

GPU_MEMORY = 80 * 10**9  # bytes of a GPU, for a machine without one


@dataclass(frozen=True)
class WorkingMemory:
    """Bytes that a forward and backward pass needs beside weights, moments and batches; each the highest value."""

    activations: float  # kept for the backward pass, at the start of the loss
    loss: float  # of the loss on top of that: a chunk of logits and the gradient of the hidden states
    backward: float  # of the backward pass, above the bytes that are kept when it starts
    peak: float  # of the whole pass, gradients of the weights included


class AllocatedBytes:
    """The bytes of all storages that were seen and are still alive."""

    def __init__(self, known: Iterable[Tensor]) -> None:
        """known: tensors whose storages are not counted, such as weights; they must stay alive."""
        self.now = self.peak = 0
        # torch keeps one Python object per storage until the storage is freed, so its id identifies the storage
        self._alive: dict[int, Any] = {id(tensor.untyped_storage()): None for tensor in known}

    def add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = id(storage), storage.nbytes()
        if key in self._alive:
            return

        def freed(_: object) -> None:
            del self._alive[key]
            self.now -= size

        self._alive[key] = weakref.ref(storage, freed)
        self.now += size
        self.peak = max(self.peak, self.now)

    def take_peak(self) -> int:
        """Return the peak since the last call."""
        peak, self.peak = self.peak, self.now
        return peak


def dry_run(
    net: ThinkNet, lengths: list[int], autocast: torch.dtype | None = None, accumulate: int = 1, on_gpu: bool = False
) -> WorkingMemory:
    """Return the memory of one micro-batch with examples of these lengths, all of their tokens supervised.

    net: on `meta`; its tensors are fake ones afterwards. With `accumulate` above 1 the micro-batch is a later one of
    its optimizer step, so the gradients of the weights exist already.
    """
    with fake_tensors(), _loss_of_device(on_gpu):
        batch = _fake_batch(lengths)
        replace_meta_tensors(net)
        net.train()
        allocated = AllocatedBytes([*net.parameters(), *net.buffers()])
        after_body: list[int] = []
        hook = net.causal_lm.base_model.register_forward_hook(lambda *_: after_body.append(allocated.now))
        before = forward = after_forward = backward = 0
        with observe_results(allocated.add):
            for _ in range(min(accumulate, 2)):
                before = allocated.now
                with torch.autocast("cpu", autocast) if autocast else nullcontext():
                    total = net(batch).total
                forward, after_forward = allocated.take_peak(), allocated.now
                total.backward()
                del total
                backward = allocated.take_peak()
        hook.remove()
    body = after_body[-1]
    return WorkingMemory(body - before, forward - body, backward - after_forward, max(forward, backward))


@contextmanager
def _loss_of_device(on_gpu: bool) -> Iterator[None]:
    """Replace two functions of net/loss.py, which read values or the machine's memory.

    The cross-entropy of a chunk is a kernel on a GPU and a loop over few positions on a CPU. Both work in place, so the
    replacement only allocates the result. The size of a chunk is that of a GPU if `on_gpu`.
    """
    cross_entropy_, positions_per_chunk = loss.cross_entropy_, loss.positions_per_chunk

    def result_only(logits: Tensor, targets: Tensor, weights: Tensor | None, with_gradient: bool) -> Tensor:
        return logits.new_empty(len(logits), dtype=torch.float32)

    def chunk_of_gpu(vocabulary: int, device: torch.device, width: int, memory: int | None = None) -> int:
        if not torch.cuda.is_available():
            memory = GPU_MEMORY
        return positions_per_chunk(vocabulary, torch.device("cuda", 0), width, memory)

    loss.cross_entropy_ = result_only
    loss.positions_per_chunk = chunk_of_gpu if on_gpu else positions_per_chunk
    try:
        yield
    finally:
        loss.cross_entropy_, loss.positions_per_chunk = cross_entropy_, positions_per_chunk


def _fake_batch(lengths: list[int]) -> Batch:
    tokens, supervised = sum(lengths), sum(lengths) - len(lengths)

    def ids(*shape: int) -> Tensor:
        return torch.zeros(*shape, dtype=torch.int64)

    return Batch(
        input_ids=ids(1, tokens),
        position_ids=ids(1, tokens),
        starts=torch.zeros(len(lengths) + 1, dtype=torch.int32),
        lengths=lengths,
        predict_from=ids(supervised),
        targets=ids(supervised),
        target_roles=torch.full((supervised,), int(Role.THOUGHT)),
        step_tokens=supervised,
        prompt_lengths=[1] * len(lengths),
        indices=list(range(len(lengths))),
        row_ids=[""] * len(lengths),
        groups=[""] * len(lengths),
    )


def replace_meta_tensors(net: nn.Module) -> None:
    """Replace every parameter and buffer on `meta` by an empty tensor on the CPU; shared tensors stay shared.

    Some code branches on the device of a tensor and does not know `meta`. `nn.Module.to_empty` would separate tied
    weights.
    """
    replacements: dict[int, Tensor] = {}
    for module in net.modules():
        parameters = module.named_parameters(recurse=False, remove_duplicate=False)
        buffers = module.named_buffers(recurse=False, remove_duplicate=False)
        for name, tensor in [*parameters, *buffers]:
            if id(tensor) not in replacements:
                empty = torch.empty(tensor.shape, dtype=tensor.dtype)
                is_parameter = isinstance(tensor, nn.Parameter)
                replacements[id(tensor)] = nn.Parameter(empty, tensor.requires_grad) if is_parameter else empty
            setattr(module, name, replacements[id(tensor)])
