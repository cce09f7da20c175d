from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import pytest

from lightning_modules.estimate.memory import held_memory, measured_held_memory, net_on_meta
from lightning_modules.net.lora import LoraSettings
from lightning_modules.think_tuner import ThinkTuner
from lightning_modules.update.optim import OptimSettings, build_optimizer
from tests.conftest import needs_bitsandbytes

ALL_LINEAR = LoraSettings(rank=8, target_modules="all-linear")


@pytest.mark.parametrize(
    "settings",
    [
        {"lora": LoraSettings()}, {"lora": ALL_LINEAR, "dtype": "bfloat16"}, {"lora": None},
        {"lora": LoraSettings(peft={"use_dora": True, "init_lora_weights": "pissa"})},
    ],
    ids=["lora", "bfloat16", "full", "dora and pissa"],
)  # fmt: skip
def test_memory_from_shapes_equals_memory_of_real_tensors(
    settings: dict[str, Any], make_batch: Callable[..., Any]
) -> None:
    tuner = ThinkTuner("assets/tiny-qwen", **settings)
    tuner.configure_model()
    assert tuner.net is not None
    optimizer = build_optimizer(tuner.net.named_parameters(), OptimSettings())
    tuner.net(make_batch(0)).total.backward()
    optimizer.step()
    shapes = net_on_meta(ThinkTuner("assets/tiny-qwen", **settings))
    assert {p.device.type for p in shapes.parameters()} == {"meta"}
    assert asdict(held_memory(shapes)) == asdict(measured_held_memory(tuner.net, optimizer))


@needs_bitsandbytes
def test_4_bit_weights_have_the_size_of_bitsandbytes_tensors() -> None:
    tuner = ThinkTuner("assets/tiny-qwen", lora=ALL_LINEAR, quantize="nf4")
    tuner.configure_model()
    assert tuner.net is not None
    layers = tuner.net.causal_lm.base_model.layers
    measured = 0.0
    for parameter in layers.parameters():
        if hasattr(parameter, "quant_state"):
            state = parameter.quant_state
            scales = (state.absmax, state.state2.absmax)
            measured += sum(t.numel() * t.element_size() for t in (parameter, *scales))
    shapes = net_on_meta(ThinkTuner("assets/tiny-qwen", lora=ALL_LINEAR))
    saved = held_memory(shapes).frozen - held_memory(shapes, nf4=True).frozen
    weights = sum(
        p.numel() * 4 for n, p in shapes.causal_lm.base_model.layers.named_parameters() if "base_layer.weight" in n
    )
    assert weights - saved == pytest.approx(measured, rel=0.01)


def test_sharding_divides_held_memory_and_adds_gathered_weights() -> None:
    shapes = net_on_meta(ThinkTuner("assets/tiny-qwen", lora=ALL_LINEAR))
    one, two, four = (held_memory(shapes, devices, sharded=True) for devices in (1, 2, 4))
    for name in ("frozen", "trained", "gradients", "moments"):
        whole = getattr(one, name)
        assert getattr(two, name) == pytest.approx(whole / 2, rel=0.02)
        assert getattr(four, name) == pytest.approx(whole / 4, rel=0.05)
    assert one.gathered == 0 < two.gathered < four.gathered < one.frozen
    assert one.total > two.total > four.total
    assert held_memory(shapes, 4).total == held_memory(shapes).total  # DDP: each device holds everything
