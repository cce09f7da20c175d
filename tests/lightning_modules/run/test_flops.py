from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from lightning_modules.net.base_model import load_base
from lightning_modules.net.lora import LoraSettings
from lightning_modules.net.think_net import ThinkNet
from lightning_modules.run.flops import ModelShape, peak_flops, training_flops
from lightning_modules.think_tuner import ThinkTuner


def net_of(**settings: Any) -> Any:
    tuner = ThinkTuner("assets/tiny-qwen", **settings)
    tuner.configure_model()
    return tuner.net


@pytest.mark.parametrize("lora", [LoraSettings(target_modules="all-linear"), None], ids=["lora", "full"])
def test_flops_of_products_are_those_that_torch_counts(
    lora: LoraSettings | None, make_batch: Callable[..., Any], tiny_tokenizer: Any
) -> None:
    """torch counts attention over all pairs of a square, so attention has a test of its own."""
    base = load_base("assets/tiny-qwen", None, "float32")
    net, batch = ThinkNet(base, tiny_tokenizer, lora, fused=False), make_batch(0)
    with FlopCounterMode(display=False) as counter:
        net(batch).total.backward()
    counts: dict[Any, int] = counter.get_flop_counts()["Global"]
    products = sum(count for name, count in counts.items() if "attention" not in str(name))
    shape = ModelShape.of(net)
    without_attention = ModelShape(shape.frozen, shape.trained, shape.head, shape.head_trained, 0, 0)
    ours = training_flops(without_attention, batch.lengths, len(batch.predict_from))
    assert ours == pytest.approx(products, rel=0.02)  # torch also counts the products of new-token embeddings


def test_attention_counts_pairs_within_an_example() -> None:
    shape = ModelShape(0, 0, 0, False, layers=2, attention=64)
    assert training_flops(shape, [3], 0) == 12 * 2 * 64 * (1 + 2 + 3)
    assert training_flops(shape, [3, 1], 0) == 12 * 2 * 64 * (1 + 2 + 3 + 1)


def test_a_frozen_weight_costs_two_thirds_and_the_head_counts_supervised_tokens_only() -> None:
    frozen, trained = ModelShape(10, 0, 7, False, 0, 0), ModelShape(0, 10, 7, True, 0, 0)
    assert training_flops(frozen, [5], 2) == 4 * 10 * 5 + 4 * 7 * 2
    assert training_flops(trained, [5], 2) == 6 * 10 * 5 + 6 * 7 * 2


def test_shape_of_the_embedded_model_follows_from_its_config() -> None:
    net = net_of(lora=LoraSettings(rank=4))
    config, shape = net.causal_lm.config, ModelShape.of(net)
    width, kv = config.hidden_size, config.num_key_value_heads * config.hidden_size // config.num_attention_heads
    layer = 2 * width * width + 2 * width * kv + 3 * width * config.intermediate_size
    adapters = 4 * (2 * (width + width) + 2 * (width + kv))
    assert (shape.frozen, shape.trained) == (config.num_hidden_layers * layer, config.num_hidden_layers * adapters)
    assert (shape.head, shape.head_trained) == (net.vocabulary * width, False)
    assert (shape.layers, shape.attention) == (config.num_hidden_layers, width)


@pytest.mark.parametrize(
    ("gpu", "dtype", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", torch.bfloat16, 989e12), ("NVIDIA H100 PCIe", torch.bfloat16, 756e12),
        ("NVIDIA A100-SXM4-80GB", torch.float16, 312e12), ("Tesla V100-SXM2-16GB", torch.float16, 125e12),
        ("Tesla V100-SXM2-16GB", torch.bfloat16, None), ("NVIDIA L40S", torch.float16, 362e12),
        ("NVIDIA A100-SXM4-80GB", torch.float32, None), ("NVIDIA GeForce RTX 4090 Laptop GPU", torch.float16, None),
        ("NVIDIA L40", torch.float16, 181e12), ("NVIDIA T400", torch.float16, None),
        ("Some other GPU", torch.float16, None),
    ],
)  # fmt: skip
def test_the_peak_is_none_for_an_unknown_gpu_or_dtype(gpu: str, dtype: torch.dtype, peak: float | None) -> None:
    assert peak_flops(gpu, dtype) == peak
