from collections.abc import Callable
from typing import Any

import pytest
import torch

from lightning_modules.estimate.fake_step import WorkingMemory, dry_run
from lightning_modules.estimate.memory import Steps, estimate_memory, shapes_of
from lightning_modules.net import loss
from lightning_modules.net.lora import LoraSettings
from lightning_modules.think_tuner import ThinkTuner

LINEAR = LoraSettings(rank=8, target_modules="all-linear")
SETTINGS: dict[str, dict[str, Any]] = {
    "fused": {"lora": LoraSettings()},
    "fused, all linear, bfloat16": {"lora": LINEAR, "dtype": "bfloat16"},
    "not fused": {"lora": LoraSettings(rank=8, target_modules="all-linear", dropout=0.1)},
    "dora": {"lora": LoraSettings(peft={"use_dora": True})},
    "full": {"lora": None},
}


def kept(tuner: ThinkTuner, batch: Any) -> int:
    """Bytes that a real forward pass of the layers keeps for the backward pass, by what autograd saves."""
    tuner.configure_model()
    net = tuner.net
    assert net is not None
    own = {tensor.untyped_storage().data_ptr() for tensor in (*net.parameters(), *net.buffers())}
    found: dict[int, int] = {}
    alive = []  # nothing may be freed: its address would be used again

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        net(batch)
    return sum(found.values())


def working(settings: dict[str, Any], lengths: list[int], **more: Any) -> WorkingMemory:
    return dry_run(shapes_of(ThinkTuner(**settings)), lengths, **more)


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS.keys())
def test_what_is_kept_is_what_autograd_keeps(settings: dict[str, Any], make_batch: Callable[..., Any]) -> None:
    batch = make_batch(0, 1, 2, 3)
    said = working(settings, batch.lengths).activations
    # Adapters of layers that share an input lie side by side in copies, which autograd does not see
    assert said == pytest.approx(kept(ThinkTuner(**settings), batch), rel=0.15)


def test_rows_and_lengths_count_and_fused_layers_and_checkpoints_keep_less() -> None:
    one, two, long = (working(SETTINGS["fused"], lengths) for lengths in ([128], [128, 128], [256]))
    assert long.activations == pytest.approx(2 * one.activations, rel=0.02)
    assert two.activations == pytest.approx(2 * one.activations, rel=0.1)  # what attention made lies there twice
    not_fused = working({"lora": LoraSettings(dropout=0.1)}, [128])
    checkpointed = working({"lora": LoraSettings(), "gradient_checkpointing": True}, [128])
    assert checkpointed.activations < 0.5 * one.activations < 0.5 * not_fused.activations
    assert checkpointed.backward > one.backward  # a layer's activations come back
    half = working({"lora": LoraSettings(), "gradient_checkpointing": 2}, [128])  # of 4 layers
    assert half.activations == pytest.approx((one.activations + checkpointed.activations) / 2, rel=0.05)


def test_gradients_of_earlier_micro_batches_are_there_at_the_peak() -> None:
    once, twice = (working({"lora": None}, [64], accumulate=count) for count in (1, 2))
    weights = sum(p.numel() * 4 for p in shapes_of(ThinkTuner(lora=None)).parameters())
    assert 0.5 * weights < twice.peak - once.peak < 1.1 * weights


def test_a_gpu_cuts_its_logits_otherwise_and_what_was_changed_for_it_is_as_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = loss.positions_per_chunk, loss.cross_entropy_
    monkeypatch.setattr(loss, "MOST_CHUNK_BYTES", {("cpu", 2): 2**20, ("cuda", 2): 2**18})
    settings = {"lora": LoraSettings(), "dtype": "bfloat16"}
    on_cpu, on_gpu = (working(settings, [512], on_gpu=gpu).loss for gpu in (False, True))
    assert 2**20 < on_cpu < 2**21  # a chunk in bfloat16 and hidden states
    assert 2**18 < on_gpu < 2**20  # one of a quarter
    assert (loss.positions_per_chunk, loss.cross_entropy_) == before


def test_the_peak_is_the_step_of_the_optimizer_where_batches_are_small() -> None:
    small, large = (estimate_memory(shapes_of(ThinkTuner(lora=None)), Steps(1, length))[1] for length in (8, 1024))
    held = small.held
    assert small.working.peak < held.gradients + small.scratch + 10**6
    assert small.total == held.frozen + held.trained + held.moments + max(
        small.working.peak, held.gradients + small.scratch
    )
    assert large.total == held.frozen + held.trained + held.moments + large.working.peak > small.total
