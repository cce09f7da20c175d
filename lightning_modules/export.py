"""Export: the trained model as a folder for transformers, with merged weights or as a PEFT adapter for its base."""

import errno
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from datamodules.text.segments import Template
from disk import disk_error, new_folder
from errors import UserError
from hub import local_folder, model_folder
from lightning_modules.checkpoints.adapter_folder import metadata
from lightning_modules.checkpoints.content import Parent
from lightning_modules.evaluation.summary import label, ordered, shown
from lightning_modules.internals.peft_internals import new_embeddings_file_key
from lightning_modules.net.lora import convert_to_plain_lora
from lightning_modules.net.new_token_embeddings import NewTokenEmbedding, NewTokenHead
from lightning_modules.net.think_net import ThinkNet
from lightning_modules.think_tuner import ThinkTuner

# Settings of a saved tokenizer that say where it was read on this machine
OF_THIS_MACHINE = ("is_local", "local_files_only", "name_or_path", "tokenizer_file", "vocab_file", "merges_file")
RANKS = {"tag_rank_open": "opening tag: rank", "tag_rank_close": "closing tag: rank"}
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.ENOENT)


@dataclass(frozen=True)
class Card:
    """The facts in the model card."""

    base: str
    revision: str | None
    figures: Mapping[str, float]
    checkpoint: Path
    quantize: str | None = None  # quantization of the base in training
    step: int | None = None  # optimizer steps done at the checkpoint
    parents: Sequence[Parent] = ()  # the file that the run's weights came from, then the one before it, and so on


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
    """Write weights in `dtype`, config, generation config, tokenizer with chat template, and a model card.

    Raises UserError if the merged model computes other logits than the trained one.
    """
    assert tuner.net is not None
    trained = _probe_logits(tuner, tuner.net.causal_lm)
    model = merge(tuner.net)  # compared before it is rounded to `dtype`, which would hide a small fault
    if difference := _difference(trained, _probe_logits(tuner, model), model.dtype):
        problem = f"computes other logits than the trained model ({difference})"
        raise UserError("export", "the merged model", problem, "export the adapter instead: --adapter")
    model = model.to(dtype)
    model.generation_config = tuner.generation_config
    model.config.pad_token_id = tuner.generation_config.pad_token_id

    def write(to: Path) -> None:
        model.save_pretrained(to)
        _write_tokenizer(tuner, template, to)
        (to / "README.md").write_text(_card(card, "merged"), encoding="utf-8")

    _write_atomically(folder, write)


def _probe_logits(tuner: ThinkTuner, model: Any) -> torch.Tensor:
    """Return the logits of a few tokens, the new ones among them, (T, V) float32."""
    (ids,) = tuner.tokenizer.encode(["Let me think: 17 is a prime number."])
    new = tuner.tokenizer.new_ids
    given = torch.tensor([[*ids[:3], *new, *ids[3:], *new]], device=model.get_input_embeddings().weight.device)
    was_training = model.training
    model.eval()
    with torch.no_grad():
        logits: torch.Tensor = model(input_ids=given, use_cache=False).logits[0].float()
    model.train(was_training)
    return logits


def _difference(trained: torch.Tensor, merged: torch.Tensor, dtype: torch.dtype) -> str | None:
    """Return the difference of logits if it is larger than rounding to `dtype` explains; None otherwise."""
    largest, apart = float(trained.abs().max()), float((trained - merged).abs().max())
    allowed = largest * (1e-4 if dtype == torch.float32 else 0.1)
    return None if apart <= allowed else f"up to {apart:.3g} apart, of at most {largest:.3g}"


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
        # Absolute: a relative path would ask the hub for a stranger's repository when it is read in another folder
        settings["base_model_name_or_path"] = str(local_folder(tuner.name) or tuner.name)
        settings["revision"] = tuner.revision
        config.write_text(json.dumps(settings, indent=2))
        facts = metadata(tensors, tuner.identity.values(), settings["base_model_name_or_path"], card.step, card.parents)
        save_file(tensors, weights, metadata=facts)
        tuner.generation_config.save_pretrained(to)
        _write_tokenizer(tuner, template, to)
        base = json.loads((model_folder(tuner.name, tuner.revision) / "config.json").read_text())
        grown = net.vocabulary if net.vocabulary > base.get("vocab_size", net.vocabulary) else None
        (to / "README.md").write_text(_card(card, "adapter", grown), encoding="utf-8")

    _write_atomically(folder, write)


def _write_tokenizer(tuner: ThinkTuner, template: Template, folder: Path) -> None:
    """Write the tokenizer with the chat template. It pads on the left, as generation needs it."""
    full = tuner.tokenizer.full
    own = full.chat_template
    full.chat_template = template.chat_template
    full.save_pretrained(folder)
    full.chat_template = own
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    kept = {name: value for name, value in settings.items() if name not in OF_THIS_MACHINE}
    kept["padding_side"] = "left"  # save_pretrained omits a side that was set after loading
    path.write_text(json.dumps(kept, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _write_atomically(folder: Path, write: Callable[[Path], None]) -> None:
    """Write beside the folder, flush and rename, so that an interrupted export leaves no folder."""
    try:
        with new_folder(folder) as scratch:
            write(scratch)
            mask = os.umask(0)
            os.umask(mask)
            for path in scratch.rglob("*"):  # safetensors makes files that only their owner may read
                path.chmod(0o777 & ~mask if path.is_dir() else 0o666 & ~mask)
    except FileExistsError as error:
        raise UserError("--to", folder, "exists and is not empty", "give a new folder") from error
    except OSError as error:
        raise disk_error("--to", folder, error) from error
    except SafetensorError as error:  # it hides the error of the disk in its text
        number = next((n for n in DISK_ERRORS if f"os error {n})" in str(error)), errno.EIO)
        raise disk_error("--to", folder, OSError(number, os.strerror(number))) from error


def _card(card: Card, kind: str, grown: int | None = None) -> str:
    """Return the model card; `grown` is the vocabulary size that an adapter needs, if its base has a smaller one."""
    lines = "\n".join(
        f"| {RANKS.get(name) or label(name, card.figures).strip()} | {shown(name, card.figures[name])} |"
        for name in ordered(set(card.figures))
    )
    local = local_folder(card.base)
    base = Path(card.base).name if local else card.base
    revision = f" at {card.revision}" if card.revision else ""
    relation = "finetune" if kind == "merged" else "adapter"
    known = "" if local else f"base_model: {card.base}\nbase_model_relation: {relation}\n"
    return f"""---
{known}library_name: {"transformers" if kind == "merged" else "peft"}
pipeline_tag: text-generation
tags:
- reasoning
- think
---

{base}{revision}, trained to think in `<think>` blocks before it answers: {kind} weights of
`{card.checkpoint.name}`. An answer may have several blocks, one for each step.
{_notes(card, kind, grown)}
```python
from transformers import pipeline

ask = pipeline("text-generation", model="THIS FOLDER")
print(ask([{{"role": "user", "content": "Solve x + 5 = 12"}}])[0]["generated_text"][-1]["content"])
```

The chat template renders a conversation as in training. It takes a system message, content as a list of texts, and
earlier answers with their `<think>` blocks. A control token that a user types, such as the end token, is read as that
token. Token ids beyond the tokenizer were never trained, and `generation_config.json` suppresses them; an engine that
does not read this file must mask them itself.

Results on held-out rows after training:

| | |
|---|---|
{lines}
"""


def _notes(card: Card, kind: str, grown: int | None) -> str:
    """Return what a user of this folder has to know beside the usual, a paragraph for each."""
    notes = ""
    if card.parents:
        names = ", before that with those of ".join(f"`{one.name()}`" for one in card.parents)
        notes += f"\nThe training did not begin with the base itself, but with the weights of {names}.\n"
    if local_folder(card.base):
        notes += "\nThe base was a folder on the machine of the training, so this card names no model of the hub.\n"
    if card.quantize:
        there = "It was merged into" if kind == "merged" else "This folder names"
        notes += f"""
The adapter was trained against the base in 4 bits a weight ({card.quantize}). {there} the base in full precision.
There the answers are nearly the same, not exactly.
"""
    if kind == "adapter":
        notes += """
Load it with peft. vLLM and llama.cpp read LoRA matrices only, and this adapter also holds the embeddings of the tags:
for these programs export the merged model (`python cli.py export` without `--adapter`). Where a report says that a
weight is "newly initialized" while the adapter loads, the adapter's own value is put there afterwards.
"""
    if grown is not None:
        notes += f"""
The base has no embeddings for the tags, so pipeline cannot open this folder. Load the base, call
`base.resize_token_embeddings({grown}, mean_resizing=False)`, then `PeftModel.from_pretrained(base, "THIS FOLDER")`.
"""
    return notes
