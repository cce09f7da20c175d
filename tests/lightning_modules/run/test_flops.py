import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from lightning_modules.net.base_model import load_base
from lightning_modules.net.lora import LoraSettings
from lightning_modules.net.think_net import ThinkNet
from lightning_modules.run.flops import ModelShape, peak_flops, training_flops
from lightning_modules.think_tuner import ThinkTuner
from tests.stand_ins.families import TRAINED, family_lm


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


@given(lengths=st.lists(st.integers(1, 40), max_size=5), windows=st.lists(st.integers(1, 50), max_size=3).map(tuple))
def test_attention_counts_pairs_within_the_window_of_each_layer(lengths: list[int], windows: tuple[int, ...]) -> None:
    shape = ModelShape(0, 0, 0, False, layers=3, attention=64, windows=windows)
    seen = [*windows, *[10**6] * (3 - len(windows))]
    pairs = sum(min(position, window) for window in seen for n in lengths for position in range(1, n + 1))
    assert training_flops(shape, lengths, 0) == 12 * 64 * pairs


@pytest.mark.parametrize("family", TRAINED)
def test_flops_of_each_family_are_those_that_torch_counts(
    family: str, tiny_tokenizer: Any, make_batch: Callable[..., Any]
) -> None:
    """Experts of a mixture count for the tokens that they get, and each matrix counts once."""
    lm = family_lm(family, TRAINED[family] | {"attention_dropout": 0.0})  # with it torch's attention is plain products
    if hasattr(lm, "set_experts_implementation"):
        lm.set_experts_implementation("eager")  # torch does not count grouped products
    net, batch = ThinkNet(lm, tiny_tokenizer, None, fused=False), make_batch(0, 3, 9)
    with FlopCounterMode(display=False) as counter:
        net(batch).total.backward()
    counts: dict[Any, int] = counter.get_flop_counts()["Global"]
    products = sum(count for name, count in counts.items() if "attention" not in str(name))
    without_attention = dataclasses.replace(ModelShape.of(net), layers=0, windows=())
    assert training_flops(without_attention, batch.lengths, len(batch.predict_from)) == pytest.approx(
        products, rel=0.01
    )


@pytest.mark.parametrize("family", TRAINED)
def test_a_shape_has_the_windows_that_the_layers_attend_within(family: str, tiny_tokenizer: Any) -> None:
    lm = family_lm(family, TRAINED[family])
    windows = (5, 5) if TRAINED[family].get("sliding_window") else ()
    assert ModelShape.of(ThinkNet(lm, tiny_tokenizer, None)).windows == windows


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
