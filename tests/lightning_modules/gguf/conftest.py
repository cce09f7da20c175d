"""A tuner with random adapters on a base that a GGUF file has a place for, and its export."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from commands.probes import probes
from datamodules.text.segments import Template
from datamodules.tokens.template import load_template
from lightning_modules.gguf.gguf_export import export_gguf
from lightning_modules.gguf.tensor_types import GgufType
from lightning_modules.think_tuner import ThinkTuner
from tests.lightning_modules.export.conftest import CARD, trained

__all__ = ["trained"]


@dataclass(frozen=True)
class Made:
    """An exported file with what its run knows."""

    file: Path
    tuner: ThinkTuner
    template: Template


@pytest.fixture
def make_gguf(trained: Callable[..., ThinkTuner], tmp_path: Path) -> Callable[..., Made]:
    """Export a tuner of a kind of base as a type; `change` may change the tuner before."""

    def make(kind: str, of: GgufType, change: Callable[[Any], None] = lambda _: None, folder: str = "out") -> Made:
        tuner = trained(kind)
        change(tuner)
        template = load_template("instruction", None, tuner.tokenizer)
        card = replace(CARD, name="demo")
        asked = probes(template, tuner.tokenizer)
        return Made(export_gguf(tuner, template, tmp_path / folder, card, of, asked), tuner, template)

    return make
