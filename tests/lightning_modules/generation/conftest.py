from collections.abc import Callable
from typing import Any

import pytest
import torch

from datamodules.tokens.tokenizer import ThinkTokenizer
from lightning_modules.net.lora import LoraSettings
from lightning_modules.net.think_net import ThinkNet
from tests.conftest import random_lm

ADAPTERS = {
    "none": None,
    "attention": LoraSettings(),
    "patterns": LoraSettings(target_modules="all-linear", peft={"rank_pattern": {"q_proj": 3, "down_proj": 5}}),
    "rslora": LoraSettings(target_modules=["k_proj", "up_proj"], use_rslora=True),
    "pissa": LoraSettings(rank=4, target_modules="all-linear", peft={"init_lora_weights": "pissa"}),
}

MakeNet = Callable[..., ThinkNet]


@pytest.fixture(scope="session")
def make_net(tiny_tokenizer: ThinkTokenizer) -> MakeNet:
    """Return a small net whose adapters, biases, norms and new embeddings all have an effect."""

    def make(kind: str = "qwen2", adapters: str = "attention", dtype: Any = torch.float32, **settings: Any) -> ThinkNet:
        net = ThinkNet(random_lm(kind, **settings).to(dtype), tiny_tokenizer, ADAPTERS[adapters])
        torch.manual_seed(1)
        # PiSSA begins with large matrices: the same noise would make activations that float32 rounds by more than 1e-5
        noise = 0.02 if adapters == "pissa" else 0.1
        with torch.no_grad():
            for name, parameter in net.named_parameters():
                if "lora_" in name or "bias" in name or name.endswith(".embeddings"):
                    parameter.add_(torch.randn_like(parameter) * noise)
                elif "norm" in name:
                    parameter.add_(torch.rand_like(parameter))
        return net.eval()

    return make
