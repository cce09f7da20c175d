"""The adapter for peft and transformers, on its base."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lightning_modules.export.adapter import export_adapter
from lightning_modules.net.lora import LoraSettings
from lightning_modules.think_tuner import ThinkTuner
from tests.conftest import KINDS, TEMPLATE
from tests.lightning_modules.export.conftest import CARD, logits


@pytest.mark.parametrize("kind", KINDS)
def test_peft_opens_the_adapter_and_gives_the_same_logits(
    kind: str, trained: Callable[..., ThinkTuner], tmp_path: Path
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    tuner = trained(kind, LoraSettings(rank=4))
    assert tuner.net is not None
    ids = torch.tensor([[5, 300, *tuner.tokenizer.new_ids, 7, tuner.tokenizer.new_ids[0]]])
    before = logits(tuner.net.causal_lm, ids)
    export_adapter(tuner, TEMPLATE, tmp_path / "out", CARD)
    settings = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == str(Path(tuner.name).resolve())
    base = AutoModelForCausalLM.from_pretrained(tuner.name)
    again = PeftModel.from_pretrained(base, str(tmp_path / "out"))
    torch.testing.assert_close(logits(again, ids), before, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(logits(again.merge_and_unload(), ids), before, rtol=1e-4, atol=1e-4)


def test_transformers_opens_the_adapter_and_gives_the_logits_of_the_trained_model(
    trained: Callable[..., ThinkTuner], tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    tuner = trained("qwen2")
    assert tuner.net is not None
    ids = torch.tensor([[5, 300, *tuner.tokenizer.new_ids, 7]])
    before = logits(tuner.net.causal_lm, ids)
    export_adapter(tuner, TEMPLATE, tmp_path / "out", CARD)
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    torch.testing.assert_close(logits(again, ids), before, rtol=1e-5, atol=1e-5)
