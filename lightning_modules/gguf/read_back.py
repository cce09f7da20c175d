"""A GGUF file read again: by transformers, and by a tokenizer that is built from its keys as llama.cpp does it."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from errors import UserError
from lightning_modules.export.check import AGAIN, Expected, check_logits, check_weights, unreadable
from lightning_modules.gguf.gguf_file import Written
from lightning_modules.gguf.pre_tokenizer import KNOWN, TEXTS, pre_tokenizer
from lightning_modules.gguf.rope import FREQUENCIES
from lightning_modules.internals.transformers_internals import without_gguf_bar

log = logging.getLogger("thinkwright")


def read_model(path: Path) -> Any:
    """Return the model that transformers builds from a GGUF file, in float32. Raises UserError if it cannot."""
    from transformers import AutoModelForCausalLM

    try:
        with without_gguf_bar():
            return AutoModelForCausalLM.from_pretrained(
                path.parent, gguf_file=path.name, dtype=torch.float32, trust_remote_code=False
            )
    except Exception as error:  # any, depending on what is wrong
        raise unreadable(error) from error


def read_keys(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray[Any, Any]]]:
    """Return the keys of a GGUF file with their values, and its tensors. Raises UserError if it cannot be read."""
    from gguf import GGUFReader

    try:
        reader: GGUFReader = GGUFReader(path)
        keys = {key: field.contents() for key, field in reader.fields.items()}
    except Exception as error:  # any, depending on what is wrong
        raise unreadable(error) from error
    return keys, {one.name: one.data for one in reader.tensors}


def read_tokenizer(keys: dict[str, Any]) -> Any:
    """Return a transformers tokenizer of the keys of a GGUF file, which computes as llama.cpp does."""
    from gguf import TokenType
    from tokenizers import AddedToken, Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    tokens, types = keys["tokenizer.ggml.tokens"], keys["tokenizer.ggml.token_type"]
    known = next(one for one in KNOWN if one.name == keys["tokenizer.ggml.pre"])
    merges = [tuple(one.split(" ", 1)) for one in keys["tokenizer.ggml.merges"]]
    model = models.BPE({token: i for i, token in enumerate(tokens)}, merges, ignore_merges=known.ignore_merges)
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizer(known)
    tokenizer.decoder = decoders.ByteLevel()
    names = {kind: [t for t, found in zip(tokens, types, strict=True) if found == kind] for kind in {*types}}
    tokenizer.add_special_tokens([AddedToken(one, normalized=False) for one in names.get(TokenType.CONTROL, [])])
    tokenizer.add_tokens([AddedToken(one, normalized=False) for one in names.get(TokenType.USER_DEFINED, [])])
    begin = keys.get("tokenizer.ggml.bos_token_id")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=None if begin is None else tokens[begin],
        eos_token=tokens[keys["tokenizer.ggml.eos_token_id"]],
        chat_template=keys["tokenizer.chat_template"],
    )


def check_file(path: Path, written: Written, expected: Sequence[Expected], texts: dict[str, list[int]]) -> None:
    """Read a GGUF file again, compare it, and log what is equal.

    `expected` are the logits of the model with the rounded weights. `texts` are texts with the ids of the run. Raises
    UserError for another weight, other logits, or other ids.
    """
    keys, tensors = read_keys(path)
    _check_ids(read_tokenizer(keys), expected, texts)
    if written.divisors is not None and not np.array_equal(tensors[FREQUENCIES], written.divisors.numpy()):
        raise UserError("export", FREQUENCIES, "is not read as it was written", AGAIN)
    model = read_model(path)
    check_weights(model, written.hashes, torch.float32)
    if scaled(keys) or written.divisors is not None:
        log.info("the scaling of positions was compared by its keys alone: transformers reads none from a GGUF file")
    else:
        check_logits(expected, model)


def scaled(keys: dict[str, Any]) -> bool:
    """Whether a file scales positions by a key."""
    return any(key.endswith(".rope.scaling.type") for key in keys)


def _check_ids(tokenizer: Any, expected: Sequence[Expected], texts: dict[str, list[int]]) -> None:
    for one in expected:
        if one.probe.messages:
            given = [dict(message) for message in one.probe.messages]
            ids = tokenizer.apply_chat_template(given, add_generation_prompt=True, return_dict=False)
            _check_equal(str(one.probe), list(ids), list(one.probe.ids), tokenizer)
    for text, wanted in texts.items():
        _check_equal(text, tokenizer(text, add_special_tokens=False).input_ids, wanted, tokenizer)


def _check_equal(text: str, ids: list[int], wanted: list[int], tokenizer: Any) -> None:
    if ids != wanted:
        problem = f"has other ids by the written file than in training: {tokenizer.convert_ids_to_tokens(ids)}"
        raise UserError("export", text, problem, AGAIN)


def texts_with_ids(full: Any) -> dict[str, list[int]]:
    """Return texts with their ids by the tokenizer of the run: TEXTS, and each added token within a text."""
    added = [token.content for token in full.added_tokens_decoder.values()]
    texts = [*TEXTS, *(f"a{one}b {one} \n{one}" for one in added)]
    return dict(zip(texts, full(texts, add_special_tokens=False).input_ids, strict=True))
