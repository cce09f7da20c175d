"""The files for other servers in an exported folder."""

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from datamodules.text.tags import Tags
from lightning_modules.export.merged import export_merged
from lightning_modules.servers.ollama_file import write_ollama_file
from lightning_modules.think_tuner import ThinkTuner
from tests.conftest import TEMPLATE
from tests.lightning_modules.export.conftest import CARD


def test_a_merged_folder_has_the_parser_and_the_modelfile(
    trained: Callable[..., ThinkTuner],
    tmp_path: Path,
) -> None:
    card = replace(CARD, license={"license": "apache-2.0"}, max_length=700)
    export_merged(trained("qwen2"), TEMPLATE, tmp_path / "out", card, torch.float32)
    modelfile = (tmp_path / "out" / "Modelfile").read_text()
    assert "FROM .\n" in modelfile
    assert 'LICENSE "apache-2.0"' in modelfile
    positions = json.loads((tmp_path / "out" / "config.json").read_text())["max_position_embeddings"]
    assert f"PARAMETER num_ctx {min(4096, positions)}\n" in modelfile
    assert "register_module(" in (tmp_path / "out" / "think_blocks_parser.py").read_text()


def test_what_ollama_cannot_do_is_said(
    trained: Callable[..., ThinkTuner],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "config.json").write_text('{"architectures": ["OtherForCausalLM"]}')
    caplog.set_level(logging.WARNING)
    write_ollama_file(tmp_path, trained("qwen2"), TEMPLATE, {})
    assert "# Ollama does not convert OtherForCausalLM itself. Use a GGUF file" in (tmp_path / "Modelfile").read_text()
    (tmp_path / "Modelfile").unlink()
    write_ollama_file(tmp_path, trained("qwen2-tied"), replace(TEMPLATE, tags=Tags("{a}", "{/a}")), {})
    assert not (tmp_path / "Modelfile").exists()
    assert caplog.messages[0].startswith("Ollama does not convert OtherForCausalLM itself; for Ollama export --gguf")
    assert caplog.messages[-1].startswith("the folder has no Modelfile for Ollama: Ollama would not find the tags {a}")
