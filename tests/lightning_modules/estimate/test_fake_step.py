from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from lightning_modules.estimate.fake_step import AllocatedBytes, WorkingMemory, dry_run, replace_meta_tensors
from lightning_modules.estimate.memory import StepShape, estimate_memory, net_on_meta
from lightning_modules.net import loss
from lightning_modules.net import think_net as think_net_module
from lightning_modules.net.lora import LoraSettings
from lightning_modules.think_tuner import ThinkTuner

ALL_LINEAR = LoraSettings(rank=8, target_modules="all-linear")
SETTINGS: dict[str, dict[str, Any]] = {
    "fused": {"lora": LoraSettings()},
    "fused, all linear, bfloat16": {"lora": ALL_LINEAR, "dtype": "bfloat16"},
    "dora": {"lora": LoraSettings(peft={"use_dora": True})},
    "full": {"lora": None},
}


def kept_bytes(tuner: ThinkTuner, batch: Any) -> int:
    """The bytes that a real forward pass keeps for the backward pass, from autograd's own hooks."""
    tuner.configure_model()
    net = tuner.net
    assert net is not None
    weights = {tensor.untyped_storage().data_ptr() for tensor in (*net.parameters(), *net.buffers())}
    found: dict[int, int] = {}
    alive = []  # a freed address could be used again

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            found[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        net(batch)
    return sum(found.values())


def working(settings: dict[str, Any], lengths: list[int], **more: Any) -> WorkingMemory:
    return dry_run(net_on_meta(ThinkTuner("assets/tiny-qwen", **settings)), lengths, **more)


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS.keys())
def test_activations_are_the_bytes_that_autograd_keeps(
    settings: dict[str, Any], make_batch: Callable[..., Any]
) -> None:
    batch = make_batch(0, 1, 2, 3)
    activations = working(settings, batch.lengths).activations
    # Adapters of layers with one input are copied side by side; autograd does not report these copies
    assert activations == pytest.approx(kept_bytes(ThinkTuner("assets/tiny-qwen", **settings), batch), rel=0.15)


def test_activations_grow_with_tokens_and_shrink_with_checkpointing_and_fused_layers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one, two, long = (working(SETTINGS["fused"], lengths) for lengths in ([128], [128, 128], [256]))
    assert long.activations == pytest.approx(2 * one.activations, rel=0.02)
    assert two.activations == pytest.approx(2 * one.activations, rel=0.1)  # attention outputs of examples are copied
    checkpointed = working({"lora": LoraSettings(), "gradient_checkpointing": True}, [128])
    assert checkpointed.backward > one.backward  # the activations of one layer are computed again
    half = working({"lora": LoraSettings(), "gradient_checkpointing": 2}, [128])  # of 4 layers
    assert half.activations == pytest.approx((one.activations + checkpointed.activations) / 2, rel=0.05)
    monkeypatch.setattr(think_net_module, "unsupported_reason", lambda lm: "not here")
    not_fused = working(SETTINGS["fused"], [128])
    assert checkpointed.activations < 0.5 * one.activations < 0.5 * not_fused.activations


def test_gradients_of_earlier_micro_batches_are_part_of_the_peak() -> None:
    once, twice = (working({"lora": None}, [64], accumulate=count) for count in (1, 2))
    weights = sum(p.numel() * 4 for p in net_on_meta(ThinkTuner("assets/tiny-qwen", lora=None)).parameters())
    assert 0.5 * weights < twice.peak - once.peak < 1.1 * weights


def test_a_gpu_has_chunks_of_its_own_and_the_loss_functions_are_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    before = loss.positions_per_chunk, loss.cross_entropy_
    monkeypatch.setattr(loss, "MOST_CHUNK_BYTES", {("cpu", 2): 2**20, ("cuda", 2): 2**18})
    settings = {"lora": LoraSettings(), "dtype": "bfloat16"}
    on_cpu, on_gpu = (working(settings, [512], on_gpu=gpu).loss for gpu in (False, True))
    assert 2**20 < on_cpu < 2**21  # a chunk of logits in bfloat16, and the gradient of the hidden states
    assert 2**18 < on_gpu < 2**20
    assert (loss.positions_per_chunk, loss.cross_entropy_) == before


def test_the_optimizer_step_is_the_peak_if_batches_are_small() -> None:
    small, large = (
        estimate_memory(net_on_meta(ThinkTuner("assets/tiny-qwen", lora=None)), StepShape(1, n))[1] for n in (8, 1024)
    )
    held = small.held
    assert small.working.peak < held.gradients + small.scratch + 10**6
    assert small.total == held.frozen + held.trained + held.moments + max(
        small.working.peak, held.gradients + small.scratch
    )
    assert large.total == held.frozen + held.trained + held.moments + large.working.peak > small.total


def test_allocated_bytes_counts_a_storage_once_until_it_is_freed() -> None:
    """Relies on torch keeping one Python object per storage until the storage is freed."""
    weight, tensor = torch.zeros(100), torch.zeros(10)
    allocated = AllocatedBytes([weight])
    for one in (weight, weight[:5], tensor, tensor[2:], tensor.view(2, 5)):
        allocated.add(one)
    assert allocated.now == allocated.peak == 40
    view = tensor[:1]
    del one, tensor
    assert allocated.now == 40  # the view keeps the storage
    del view
    assert allocated.now == 0
    assert (allocated.take_peak(), allocated.take_peak()) == (40, 0)


def test_replaced_meta_tensors_keep_shape_dtype_and_sharing() -> None:
    with torch.device("meta"):
        net = nn.ModuleDict({"a": nn.Linear(3, 4, dtype=torch.float16), "b": nn.BatchNorm1d(4)})
        net["c"] = nn.Linear(3, 4)
        net["c"].weight = net["a"].weight
        net["a"].weight.requires_grad_(False)
    before = {name: (tensor.shape, tensor.dtype) for name, tensor in net.state_dict().items()}
    replace_meta_tensors(net)
    assert {name: (tensor.shape, tensor.dtype) for name, tensor in net.state_dict().items()} == before
    assert {tensor.device.type for tensor in net.state_dict().values()} == {"cpu"}
    assert net["c"].weight is net["a"].weight
    assert [name for name, p in net.named_parameters() if not p.requires_grad] == ["a.weight"]
