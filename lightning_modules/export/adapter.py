"""A PEFT adapter for the base of a run."""

import gc
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from datamodules.text.segments import Template
from errors import UserError
from hub import local_folder, model_folder
from lightning_modules.checkpoints.adapter_folder import metadata
from lightning_modules.export.card import card_text
from lightning_modules.export.card_facts import Card
from lightning_modules.export.check import (
    Probe,
    check_logits,
    check_use,
    read_tokenizer,
    run_computes,
    unreadable,
)
from lightning_modules.export.folder import export_folder
from lightning_modules.export.tokenizer_files import write_tokenizer
from lightning_modules.internals.peft_internals import new_embeddings_file_key
from lightning_modules.net.base_model import load_base
from lightning_modules.net.lora import convert_to_plain_lora
from lightning_modules.net.new_token_embeddings import NewTokenEmbedding
from lightning_modules.think_tuner import ThinkTuner


def export_adapter(
    tuner: ThinkTuner, template: Template, folder: Path, card: Card, probes: Sequence[Probe] = ()
) -> None:
    """Write a PEFT adapter for the base: LoRA matrices, and new-token embeddings as `trainable_token_indices`.

    The folder is read again before it gets its name, and the tuner has no net afterwards: there would be two models in
    memory. Give a tuner in float32, in which every difference shows. Raises UserError if the run trained all weights,
    or if the written adapter on its base computes something else than the run.
    """
    assert tuner.net is not None
    if tuner.lora is None:
        raise UserError("--adapter", None, "the run trained all weights and has no adapter", "export without --adapter")
    expected = run_computes(tuner, probes)
    vocabulary = tuner.net.vocabulary
    base = json.loads((model_folder(tuner.name, tuner.revision) / "config.json").read_text())
    grown = vocabulary if vocabulary > base.get("vocab_size", vocabulary) else None
    with export_folder(folder) as scratch:
        _write_weights(tuner, scratch, card)
        tuner.generation_config.save_pretrained(scratch)
        write_tokenizer(tuner, template, scratch)
        (scratch / "README.md").write_text(card_text(card, "adapter", grown), encoding="utf-8")
        tuner.net = None
        gc.collect()
        again = _read_adapter(tuner, scratch, grown)
        check_logits(expected, again)
        tokenizer = read_tokenizer(scratch, tuner.trust_remote_code)
        # peft copies the embedding matrix for each token, and an adapter that could not be merged is refused by fit
        check_use(again.merge_and_unload(), tokenizer, expected, torch.float32, tuner.generation_config)


def _write_weights(tuner: ThinkTuner, folder: Path, card: Card) -> None:
    from safetensors.torch import load_file, save_file

    assert tuner.net is not None
    net = tuner.net
    net.lm.save_pretrained(folder, save_embedding_layers=False)
    weights, config = folder / "adapter_model.safetensors", folder / "adapter_config.json"
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


def _read_adapter(tuner: ThinkTuner, folder: Path, grown: int | None) -> Any:
    """The base with the written adapter, as the model card says to load it."""
    from peft import PeftModel
    from transformers import GenerationConfig

    base = load_base(tuner.name, tuner.revision, tuner.dtype_name, trust_remote_code=tuner.trust_remote_code)
    if grown is not None:
        base.resize_token_embeddings(grown, mean_resizing=False)
    try:
        base.generation_config = GenerationConfig.from_pretrained(folder)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*gradient_checkpointing.*")  # renamed within transformers 5
            return PeftModel.from_pretrained(base, str(folder))
    except Exception as error:  # any, depending on what is wrong
        raise unreadable(error) from error
