import pytest

from lightning_modules.estimate.memory import net_on_meta
from lightning_modules.estimate.traffic import step_traffic
from lightning_modules.net.lora import LoraSettings
from lightning_modules.think_tuner import ThinkTuner


@pytest.mark.parametrize("lora", [LoraSettings(), None], ids=["lora", "all weights"])
def test_the_bytes_of_a_step_follow_from_the_weights(lora: LoraSettings | None) -> None:
    net = net_on_meta(ThinkTuner("assets/tiny-qwen", lora=lora))
    everything = 4 * sum(p.numel() for p in net.parameters())  # float32
    layers = 4 * sum(p.numel() for p in net.causal_lm.base_model.layers.parameters())
    trained = 4 * sum(p.numel() for p in net.parameters() if p.requires_grad)
    assert (trained == everything) == (lora is None)
    for devices in (1, 2, 8, 512):
        ring = (devices - 1) / devices
        ddp, fsdp = (step_traffic(net, devices, sharded, accumulate=3) for sharded in (False, True))
        assert ddp.total == ddp.all_reduce == pytest.approx(2 * ring * trained)
        assert fsdp.all_gather == pytest.approx(3 * ring * (everything + layers))
        assert fsdp.reduce_scatter == pytest.approx(3 * ring * trained)
        assert fsdp.total == fsdp.all_gather + fsdp.reduce_scatter
