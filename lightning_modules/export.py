"""Export: the trained model as a folder for transformers, with merged weights or as a PEFT adapter for its base."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from datamodules.text.segments import Template
from errors import UserError
from hub import model_folder
from lightning_modules.evaluation.summary import label, ordered, shown
from lightning_modules.internals.peft_internals import new_embeddings_file_key
from lightning_modules.net.lora import convert_to_plain_lora
from lightning_modules.net.new_token_embeddings import NewTokenEmbedding, NewTokenHead
from lightning_modules.net.think_net import ThinkNet
from lightning_modules.think_tuner import ThinkTuner


@dataclass(frozen=True)
class Card:
    """The facts in the model card."""

    base: str
    revision: str | None
    figures: Mapping[str, float]
    checkpoint: Path
    quantize: str | None = None  # quantization of the base in training


def chat_template(template: Template, own: str | None) -> str:
    """Return a Jinja chat template that renders a user's message as in training.

    For `data.template: chat` it is the model's `own` template with two changes: a conversation without a system prompt
    gets that of the training, and the opening tag is removed, because the model has learned to write it.
    """
    if template.chat:
        text = str(own)
        if template.system is not None:
            turn = f"[{{'role': 'system', 'content': {_literal(template.system)}}}]"
            text = (
                "{%- if messages[0]['role'] != 'system' -%}"
                f"{{%- set messages = {turn} + messages -%}}{{%- endif -%}}{text}"
            )
        if template.opening:
            end = _literal(template.opening)
            # With trim_blocks, which transformers sets, a set block drops the line break after its tag
            text = f"{{% set rendered %}}{text}{{% endset %}}{{{{- rendered.removesuffix({end}) -}}}}"
        return text
    content = "message['content'] | trim" if template.strips else "message['content']"
    turn = " + ".join(f"({content})" if part is None else _literal(part.text) for part in template.parts)
    return (
        "{%- if messages[0]['role'] == 'system' -%}{{ raise_exception('Trained without a system turn.') }}{%- endif -%}"
        "{%- for message in messages -%}"
        f"{{%- if message['role'] == 'user' -%}}{{{{- {turn} -}}}}"
        "{%- else -%}{{- message['content'] + eos_token -}}{%- endif -%}"
        "{%- endfor -%}"
    )


def _literal(text: str) -> str:
    """Return the text as a string literal of Jinja."""
    return json.dumps(text, ensure_ascii=False)


def merge(net: ThinkNet) -> Any:
    """Return the transformers model with adapters and new-token embeddings in its own matrices. It changes the net."""
    model: Any = net.causal_lm
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    if isinstance(embedding, NewTokenEmbedding) and isinstance(head, NewTokenHead):
        with torch.no_grad():
            for module in (embedding, head):  # if tied, both write the same values to one matrix
                module.base.weight[list(module.ids)] = module.embeddings.to(module.base.weight.dtype)
        model.set_input_embeddings(embedding.base)
        model.set_output_embeddings(head.base)
    return net.lm.merge_and_unload() if hasattr(net.lm, "merge_and_unload") else model


def export_merged(tuner: ThinkTuner, template: Template, folder: Path, card: Card, dtype: torch.dtype) -> None:
    """Write weights in `dtype`, config, generation config, tokenizer with chat template, and a model card."""
    assert tuner.net is not None
    model = merge(tuner.net).to(dtype)
    model.generation_config = tuner.generation_config

    def write(to: Path) -> None:
        model.save_pretrained(to)
        _write_tokenizer(tuner, template, to)
        (to / "README.md").write_text(_card(card, "merged"), encoding="utf-8")

    _write_atomically(folder, write)


def export_adapter(tuner: ThinkTuner, template: Template, folder: Path, card: Card) -> None:
    """Write a PEFT adapter for the base: LoRA matrices, and new-token embeddings as `trainable_token_indices`.

    Raise UserError if the run trained all weights.
    """
    assert tuner.net is not None
    if tuner.lora is None:
        raise UserError("--adapter", None, "the run trained all weights and has no adapter", "export without --adapter")
    net = tuner.net

    def write(to: Path) -> None:
        from safetensors.torch import load_file, save_file

        net.lm.save_pretrained(to, save_embedding_layers=False)
        weights, config = to / "adapter_model.safetensors", to / "adapter_config.json"
        tensors, settings = load_file(weights), json.loads(config.read_text())
        if net.lora_start is not None:
            convert_to_plain_lora(tensors, settings, net.lora_start)
        model: Any = net.causal_lm
        trained = {"embed_tokens": model.get_input_embeddings()}
        if not model.config.tie_word_embeddings:
            trained["lm_head"] = model.get_output_embeddings()
        if isinstance(trained["embed_tokens"], NewTokenEmbedding):
            settings["trainable_token_indices"] = {name: list(module.ids) for name, module in trained.items()}
            for name, module in trained.items():
                path = f"model.{name}" if name == "embed_tokens" else name
                tensors[new_embeddings_file_key(path)] = module.embeddings.detach().clone()
        settings["base_model_name_or_path"], settings["revision"] = tuner.name, tuner.revision
        config.write_text(json.dumps(settings, indent=2))
        save_file(tensors, weights, metadata={"format": "pt"})
        _write_tokenizer(tuner, template, to)
        base = json.loads((model_folder(tuner.name, tuner.revision) / "config.json").read_text())
        grown = net.vocabulary if net.vocabulary > base.get("vocab_size", net.vocabulary) else None
        (to / "README.md").write_text(_card(card, "adapter", grown), encoding="utf-8")

    _write_atomically(folder, write)


def _write_tokenizer(tuner: ThinkTuner, template: Template, folder: Path) -> None:
    full = tuner.tokenizer.full
    own = full.chat_template
    full.chat_template = chat_template(template, template.chat)
    full.save_pretrained(folder)
    full.chat_template = own


def _write_atomically(folder: Path, write: Callable[[Path], None]) -> None:
    """Write beside the folder and rename, so that an interrupted export leaves no folder."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        write(scratch)
        scratch.chmod(0o755)
        os.replace(scratch, folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _card(card: Card, kind: str, grown: int | None = None) -> str:
    """Return the model card; `grown` is the vocabulary size that an adapter needs, if its base has a smaller one."""
    lines = "\n".join(
        f"| {label(name, card.figures).strip()} | {shown(name, card.figures[name])} |"
        for name in ordered(set(card.figures))
    )
    revision = f" at {card.revision}" if card.revision else ""
    notes = ""
    if card.quantize:
        there = "It was merged into" if kind == "merged" else "This folder names"
        notes = f"""
The adapter was trained against the base in 4 bits a weight ({card.quantize}). {there} the base in full precision.
There the answers are nearly the same, not exactly.
"""
    if grown is not None:
        notes += f"""
The base has no embeddings for the tags, so pipeline cannot open this folder. Load the base, call
`base.resize_token_embeddings({grown}, mean_resizing=False)`, then `PeftModel.from_pretrained(base, "THIS FOLDER")`.
"""
    return f"""---
base_model: {card.base}
library_name: {"transformers" if kind == "merged" else "peft"}
pipeline_tag: text-generation
---

{card.base}{revision}, trained to think in `<think>` blocks before it answers: {kind} weights of
`{card.checkpoint.name}`.
{notes}
```python
from transformers import pipeline

ask = pipeline("text-generation", model="THIS FOLDER")
print(ask([{{"role": "user", "content": "Solve x + 5 = 12"}}])[0]["generated_text"][-1]["content"])
```

The chat template renders a message as in training. Token ids beyond the tokenizer were never trained, and
`generation_config.json` suppresses them; an engine that does not read this file must mask them itself.

Results on held-out rows after training:

| | |
|---|---|
{lines}
"""
