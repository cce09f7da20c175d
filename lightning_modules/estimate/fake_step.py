"""The memory of a training step, by taking one on tensors without memory.

The net is run forward and backward as it is, adapters, checkpointing, kept activations and all, on torch's fake
tensors, which have a shape and a type but no values; what every operation would allocate is counted, and when it would
be freed. So nothing here has to know how a layer is computed. What kernels use inside is not seen, and the fake device
is always a CPU: torch without CUDA cannot imagine one. For a GPU the loss is told how a GPU would cut its chunks.
"""

import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from datamodules.batches.collate import Batch
from datamodules.text.segments import Role
from lightning_modules.net import loss
from lightning_modules.net.think_net import ThinkNet

GPU_MEMORY = 80 * 10**9  # of a GPU that is not here


@dataclass(frozen=True)
class WorkingMemory:
    """Bytes that a step needs beside weights and moments, each at its highest."""

    activations: float  # kept for the backward pass when the loss begins
    loss: float  # what the loss takes beside them: chunks of logits and their gradient
    backward: float  # gradients of activations on top of what is kept when the backward pass begins
    peak: float  # of forward and backward pass, gradients of the weights included as far as they are there


class Allocations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts bytes of the storages that operations under it make, until they are gone."""

    def __init__(self, known: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        # By address: a storage has one Python object as long as anything holds it
        self._alive: dict[int, Any] = {tensor.untyped_storage()._cdata: None for tensor in known}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._count(tensor)
        return result

    def since(self) -> int:
        """The peak since it was last asked for."""
        peak, self.peak = self.peak, self.now
        return peak

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._alive:
            return

        def gone(_: object) -> None:
            del self._alive[key]
            self.now -= size

        self._alive[key] = weakref.ref(storage, gone)
        self.now += size
        self.peak = max(self.peak, self.now)


def dry_run(
    net: ThinkNet, lengths: list[int], autocast: torch.dtype | None = None, accumulate: int = 1, on_gpu: bool = False
) -> WorkingMemory:
    """For a batch of rows of these lengths, all their tokens supervised; `net` on `meta`, which it is no more after.

    With `accumulate` above 1, of a micro-batch that finds the gradients of those before it.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    # A mode of fake tensors lets in what is real: constants like masks
    with FakeTensorMode(allow_non_fake_inputs=True), _loss_at_once(on_gpu):
        batch = _batch(lengths)
        _leave_meta(net)
        net.train()
        counted = Allocations([*net.parameters(), *net.buffers()])
        kept: list[int] = []  # what there is when the body is done
        hook = net.causal_lm.base_model.register_forward_hook(lambda *_: kept.append(counted.now))
        phases: list[tuple[int, int, int, int, int]] = []
        with counted:
            for _ in range(min(accumulate, 2)):
                before = counted.now
                with torch.autocast("cpu", autocast) if autocast else nullcontext():
                    total = net(batch).total
                forward, after = counted.since(), counted.now
                total.backward()
                del total
                phases.append((before, kept[-1], forward, after, counted.since()))
        hook.remove()
    before, body, forward, after, backward = phases[-1]
    return WorkingMemory(body - before, forward - body, backward - after, max(forward, backward))


@contextmanager
def _loss_at_once(on_gpu: bool) -> Iterator[None]:
    """Has the cross-entropy of a chunk, which is a kernel or a loop over a few rows at a time, be one step that makes
    its results and nothing else; and has chunks be those of a GPU."""
    own = loss.cross_entropy_, loss.positions_per_chunk

    def at_once(logits: Tensor, *_: Any) -> Tensor:
        return logits.new_empty(len(logits), dtype=torch.float32)

    def of_gpu(vocabulary: int, device: torch.device, width: int, memory: int | None = None) -> int:
        if not torch.cuda.is_available():
            memory = GPU_MEMORY
        return own[1](vocabulary, torch.device("cuda", 0), width, memory)

    loss.cross_entropy_ = at_once  # type: ignore[assignment]
    loss.positions_per_chunk = of_gpu if on_gpu else own[1]
    try:
        yield
    finally:
        loss.cross_entropy_, loss.positions_per_chunk = own


def _batch(lengths: list[int]) -> Batch:
    tokens, places = sum(lengths), sum(lengths) - len(lengths)

    def ids(*shape: int) -> Tensor:
        return torch.zeros(*shape, dtype=torch.int64)

    return Batch(
        input_ids=ids(1, tokens),
        position_ids=ids(1, tokens),
        starts=torch.zeros(len(lengths) + 1, dtype=torch.int32),
        lengths=lengths,
        predict_from=ids(places),
        targets=ids(places),
        target_roles=torch.full((places,), int(Role.THOUGHT)),
        step_tokens=places,
        prompt_lengths=[1] * len(lengths),
        rows=list(range(len(lengths))),
        row_ids=[""] * len(lengths),
        groups=[""] * len(lengths),
    )


def _leave_meta(net: nn.Module) -> None:
    """Fake tensors in place of those on `meta`: some code asks a tensor for its device, and knows no `meta`."""
    made: dict[int, Tensor] = {}
    for module in net.modules():
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                if tensor is None:
                    continue
                if id(tensor) not in made:
                    fake = torch.empty(tensor.shape, dtype=tensor.dtype)
                    is_weight = isinstance(tensor, nn.Parameter)
                    made[id(tensor)] = nn.Parameter(fake, tensor.requires_grad) if is_weight else fake
                tensors[name] = made[id(tensor)]  # type: ignore[assignment]
