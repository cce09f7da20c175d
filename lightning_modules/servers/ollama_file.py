"""The Modelfile of a run, beside merged weights or a GGUF file."""

import logging
from collections.abc import Mapping
from pathlib import Path

from datamodules.text.segments import Template
from lightning_modules.servers.modelfile import context_length, write_modelfile
from lightning_modules.servers.ollama_weights import unread_by_ollama
from lightning_modules.think_tuner import ThinkTuner

log = logging.getLogger("thinkwright")


def write_ollama_file(
    folder: Path,
    tuner: ThinkTuner,
    template: Template,
    license: Mapping[str, str],
    longest: int | None = None,
    one_block: bool = False,
    weights: str = ".",
) -> None:
    """Write the Modelfile for Ollama, for a folder of weights or a GGUF file in it (`weights` "./NAME.gguf").

    `longest`: tokens of the longest row in training. Weights that Ollama does not read by itself are logged, and stand
    in the file. A template that Ollama cannot have is logged.
    """
    assert tuner.net is not None
    notes = []
    if weights == "." and (unread := unread_by_ollama(folder)):
        notes = [f"{unread}. Use a GGUF file: export --gguf writes one, with a Modelfile of its own."]
        log.warning(f"{unread}; for Ollama export --gguf Q8_0")
    positions = getattr(tuner.net.causal_lm.config, "max_position_embeddings", None)
    context = context_length(positions, longest)
    given = template, tuner.tokenizer, tuner.generation_config, context, license, one_block, notes, weights
    if reason := write_modelfile(folder, *given):
        log.warning(f"the folder has no Modelfile for Ollama: {reason}")
