"""The code in a model card, run as a user copies it."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from commands.probes import probes
from datamodules.tokens.template import load_template
from lightning_modules.export.adapter import export_adapter
from lightning_modules.export.card import card_text
from lightning_modules.export.card_use import PLACE, QUESTION
from lightning_modules.export.check import run_computes
from lightning_modules.export.merged import export_merged
from lightning_modules.net.lora import LoraSettings
from lightning_modules.think_tuner import ThinkTuner
from tests.lightning_modules.export.conftest import CARD


@pytest.mark.parametrize("kind", ["merged", "adapter"])
def test_the_code_in_a_card_prints_what_the_run_writes(
    kind: str, trained: Callable[..., ThinkTuner], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tuner = trained("qwen2", LoraSettings(rank=4))
    tuner.generation_config.max_new_tokens = 9
    template = load_template("instruction", None, tuner.tokenizer)
    asked = probes(template, tuner.tokenizer)
    written = next(one.written for one in run_computes(tuner, asked) if str(one.probe) == QUESTION)
    wanted = tuner.tokenizer.full.decode(list(written)[:9], skip_special_tokens=True)
    if kind == "merged":
        export_merged(tuner, template, tmp_path / "out", CARD, torch.float32, asked)
    else:
        export_adapter(tuner, template, tmp_path / "out", CARD, asked)
    found = re.search(r"```python\n(.*?)```", (tmp_path / "out" / "README.md").read_text(), re.DOTALL)
    assert found is not None
    code = found[1].replace(PLACE, str(tmp_path / "out")).replace("THE BASE", tuner.name)
    capsys.readouterr()
    names: dict[str, Any] = {}
    exec(compile(code, "card", "exec"), names)
    assert capsys.readouterr().out.removesuffix("\n") == wanted


def test_an_adapter_of_a_base_that_has_the_tags_is_a_usual_lora() -> None:
    assert "Export the merged model for them" in card_text(CARD, "adapter")
    text = card_text(replace(CARD, new_tokens=False), "adapter")
    assert "--enable-lora --lora-modules" in text and "Export the merged model" not in text


def test_the_card_of_a_gguf_file_says_how_it_is_run() -> None:
    text = card_text(CARD, "gguf")
    assert "llama-server -m FILE.gguf" in text and "transformers import" not in text
