"""A tuner with random adapters, and the facts of its card."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from datamodules.tokens.tokenizer import ThinkTokenizer
from lightning_modules.export.card_facts import Card
from lightning_modules.net.lora import LoraSettings
from lightning_modules.think_tuner import ThinkTuner
from tests.conftest import TINY, random_lm

CARD = Card("assets/tiny-qwen", None, {"loss": 0.5, "answer_match": 0.9, "answer_match/easy": 1.0}, Path("best.ckpt"))


@pytest.fixture
def trained(tmp_path: Path, tiny_tokenizer: ThinkTokenizer) -> Callable[..., ThinkTuner]:
    """A tuner on a base of some kind, with random adapters and new-token embeddings."""

    def make(kind: str, lora: LoraSettings | None = None) -> ThinkTuner:
        base = tmp_path / f"base-{kind}"
        random_lm(kind).save_pretrained(base)
        for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
            os.link(TINY / name, base / name)
        tuner = ThinkTuner(name=str(base), lora=lora or LoraSettings(rank=4, target_modules="all-linear"))
        tuner.configure_model()
        torch.manual_seed(1)
        for parameter in tuner.trained().values():
            torch.nn.init.normal_(parameter, std=0.1)
        return tuner

    return make


def logits(model: Any, ids: torch.Tensor) -> torch.Tensor:
    model.eval()
    with torch.no_grad():
        result: torch.Tensor = model(input_ids=ids).logits
    return result
