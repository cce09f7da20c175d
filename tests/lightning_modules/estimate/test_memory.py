from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import pytest

from lightning_modules.estimate.memory import held, on_this_device, shapes_of
from lightning_modules.net.lora import LoraSettings
from lightning_modules.think_tuner import ThinkTuner
from lightning_modules.update.optim import OptimSettings, build_optimizer
from tests.conftest import needs_bitsandbytes

LINEAR = LoraSettings(rank=8, target_modules="all-linear")


@pytest.mark.parametrize(
    "settings",
    [
        {"lora": LoraSettings()}, {"lora": LINEAR, "dtype": "bfloat16"}, {"lora": None},
        {"lora": LoraSettings(peft={"use_dora": True, "init_lora_weights": "pissa"})},
    ],
    ids=["lora", "bfloat16", "full", "dora and pissa"],
)  # fmt: skip
def test_shapes_alone_tell_what_a_device_holds(settings: dict[str, Any], make_batch: Callable[..., Any]) -> None:
    tuner = ThinkTuner(**settings)
    tuner.configure_model()
    assert tuner.net is not None
    optimizer = build_optimizer(tuner.net.named_parameters(), OptimSettings())
    tuner.net(make_batch(0)).total.backward()
    optimizer.step()
    shapes = shapes_of(ThinkTuner(**settings))
    assert {p.device.type for p in shapes.parameters()} == {"meta"}
    assert asdict(held(shapes)) == asdict(on_this_device(tuner.net, optimizer))


@needs_bitsandbytes
def test_4_bit_weights_take_what_they_take() -> None:
    tuner = ThinkTuner(lora=LINEAR, quantize="nf4")
    tuner.configure_model()
    assert tuner.net is not None
    layers = tuner.net.causal_lm.base_model.layers
    really = 0.0
    for parameter in layers.parameters():
        if hasattr(parameter, "quant_state"):
            state = parameter.quant_state
            scales = (state.absmax, state.state2.absmax)
            really += sum(t.numel() * t.element_size() for t in (parameter, *scales))
    shapes = shapes_of(ThinkTuner(lora=LINEAR))
    without = held(shapes).frozen - held(shapes, nf4=True).frozen  # what quantizing takes off the same weights
    weights = sum(
        p.numel() * 4 for n, p in shapes.causal_lm.base_model.layers.named_parameters() if "base_layer.weight" in n
    )
    assert weights - without == pytest.approx(really, rel=0.01)


def test_sharding_divides_what_is_held_and_says_what_is_gathered() -> None:
    shapes = shapes_of(ThinkTuner(lora=LINEAR))
    one, two, four = (held(shapes, devices, sharded=True) for devices in (1, 2, 4))
    for name in ("frozen", "trained", "gradients", "moments"):
        whole = getattr(one, name)
        assert getattr(two, name) == pytest.approx(whole / 2, rel=0.02)
        assert getattr(four, name) == pytest.approx(whole / 4, rel=0.05)
    assert one.gathered == 0 < two.gathered < four.gathered < one.frozen
    assert one.total > two.total > four.total
    assert held(shapes, 4).total == held(shapes).total  # DDP: each device holds all
