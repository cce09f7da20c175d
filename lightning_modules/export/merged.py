"""The merged model: adapters and embeddings of new tokens in the matrices of the base."""

import gc
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from datamodules.text.segments import Template
from errors import UserError
from lightning_modules.export.card import card_text
from lightning_modules.export.card_facts import Card
from lightning_modules.export.check import (
    EQUAL,
    Expected,
    Probe,
    after_rounding,
    check_logits,
    check_use,
    check_weights,
    difference,
    read_tokenizer,
    run_computes,
    unreadable,
    weight_hashes,
)
from lightning_modules.export.folder import export_folder
from lightning_modules.export.rounding import dtype_name, round_weights
from lightning_modules.export.tokenizer_files import write_tokenizer
from lightning_modules.net.new_token_embeddings import NewTokenEmbedding, NewTokenHead
from lightning_modules.net.think_net import ThinkNet
from lightning_modules.servers.ollama_file import write_ollama_file
from lightning_modules.servers.vllm_parser import write_vllm_parser
from lightning_modules.think_tuner import ThinkTuner


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


def merge_and_check(net: ThinkNet, expected: Sequence[Expected]) -> Any:
    """Return the merged model. Raises UserError if it computes something else than the net did."""
    model = merge(net)
    apart = difference(expected, model)  # before it is rounded, which would hide a small fault
    if not apart <= EQUAL:
        problem = f"computes other logits than the trained model ({apart:.3g} of the largest away)"
        raise UserError("export", "the merged model", problem, "export the adapter instead: --adapter")
    return model


def export_merged(
    tuner: ThinkTuner,
    template: Template,
    folder: Path,
    card: Card,
    dtype: torch.dtype,
    probes: Sequence[Probe] = (),
    max_shard_size: str | None = None,
) -> None:
    """Write weights in `dtype`, config, generation config, tokenizer with chat template, files for other servers, and a
    model card.

    The folder is read again before it gets its name, and the tuner has no net afterwards: there would be two models in
    memory. Raises UserError if the merged model or the folder computes something else than the trained model, and for a
    dtype that cannot hold the weights.
    """
    assert tuner.net is not None
    expected = run_computes(tuner, probes)
    model = merge_and_check(tuner.net, expected)
    round_weights(model, dtype)
    if dtype != torch.float32:
        expected = after_rounding(expected, model, dtype_name(dtype))
    model = model.to(dtype)
    model.generation_config = tuner.generation_config
    model.config.pad_token_id = tuner.generation_config.pad_token_id
    shards = {} if max_shard_size is None else {"max_shard_size": max_shard_size}
    with export_folder(folder) as scratch:
        model.save_pretrained(scratch, **shards)
        write_tokenizer(tuner, template, scratch)
        write_vllm_parser(scratch, template, tuner.tokenizer)
        write_ollama_file(scratch, tuner, template, card.license, card.max_length, card.one_block)
        (scratch / "README.md").write_text(card_text(card, "merged"), encoding="utf-8")
        hashes = weight_hashes(model, dtype)
        tuner.net = model = None
        gc.collect()
        _check(scratch, expected, hashes, dtype, tuner)


def _check(
    folder: Path, expected: Sequence[Expected], hashes: Mapping[str, str], dtype: torch.dtype, tuner: ThinkTuner
) -> None:
    """Read the folder in float32, in which every difference shows, and then as a user reads it."""
    model = _read_model(folder, torch.float32, tuner.trust_remote_code)
    check_weights(model, hashes, dtype)
    check_logits(expected, model)
    if dtype != torch.float32:
        del model
        gc.collect()
        model = _read_model(folder, "auto", tuner.trust_remote_code)
    tokenizer = read_tokenizer(folder, tuner.trust_remote_code)
    check_use(model, tokenizer, expected, dtype, tuner.generation_config)


def _read_model(folder: Path, dtype: torch.dtype | str, trust_remote_code: bool) -> Any:
    """Return the model of a folder. Raises UserError if it cannot be read."""
    from transformers import AutoModelForCausalLM

    try:
        return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, trust_remote_code=trust_remote_code)
    except Exception as error:  # any, depending on what is wrong
        raise unreadable(error) from error
