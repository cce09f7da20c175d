"""The files for other servers, beside merged weights."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from datamodules.text.segments import Template
from lightning_modules.servers.modelfile import context_length, write_modelfile
from lightning_modules.servers.ollama_weights import unread_by_ollama
from lightning_modules.servers.vllm_parser import write_vllm_parser
from lightning_modules.think_tuner import ThinkTuner

log = logging.getLogger("thinkwright")


def write_server_files(
    folder: Path,
    tuner: ThinkTuner,
    template: Template,
    license: Mapping[str, str],
    longest: int | None = None,
    one_block: bool = False,
) -> None:
    """Write the parser for vLLM and the Modelfile for Ollama into a folder that has the weights and the tokenizer.

    `longest`: tokens of the longest row in training. What Ollama cannot do with the folder is logged, and stands in the
    Modelfile.
    """
    write_vllm_parser(folder, template, tuner.tokenizer)
    notes = []
    if unread := unread_by_ollama(folder):
        notes = [f"{unread}. Use a GGUF file: export --gguf writes one, with a Modelfile of its own."]
        log.warning(f"{unread}; for Ollama export --gguf Q8_0")
    write_ollama_file(folder, tuner, template, license, longest, one_block, notes)


def write_ollama_file(
    folder: Path,
    tuner: ThinkTuner,
    template: Template,
    license: Mapping[str, str],
    longest: int | None = None,
    one_block: bool = False,
    notes: Sequence[str] = (),
    weights: str = ".",
) -> None:
    """Write the Modelfile for Ollama, for a folder of weights or a GGUF file in it (`weights` "./NAME.gguf").

    A template that Ollama cannot have is logged.
    """
    assert tuner.net is not None
    positions = getattr(tuner.net.causal_lm.config, "max_position_embeddings", None)
    context = context_length(positions, longest)
    given = template, tuner.tokenizer, tuner.generation_config, context, license, one_block, notes, weights
    if reason := write_modelfile(folder, *given):
        log.warning(f"the folder has no Modelfile for Ollama: {reason}")
