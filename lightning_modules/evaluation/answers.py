"""Held-out rows answered by the model, beside the responses that the data has."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from datamodules.batches.collate import Batch
from datamodules.tokens.tokenizer import ThinkTokenizer
from lightning_modules.evaluation.think_scores import AnsweredRow
from lightning_modules.generation.generate import DecodingSettings, generate
from lightning_modules.generation.think_response import parse_response
from lightning_modules.net.think_net import ThinkNet
from lightning_modules.ranks import from_all_ranks

if TYPE_CHECKING:
    from transformers import GenerationConfig


@dataclass
class EvalSettings:
    """What validation and test do beside the loss."""

    rows: int = 64
    """Number of held-out rows that the model answers at each validation. Default 64. 0 reports the loss only, which is
    faster; more rows make the scores more precise."""
    decoding: DecodingSettings = field(default_factory=DecodingSettings)
    """How the model answers them."""


def answer_rows(
    net: ThinkNet,
    tokenizer: ThinkTokenizer,
    config: "GenerationConfig",
    batch: Batch,
    places: Sequence[int],
    cancelled: Callable[[], bool],
    sharded: bool,
) -> list[AnsweredRow]:
    """Return the model's responses to some rows of a batch, given by their places in it.

    The responses are not complete once `cancelled()` is True. Sharded ranks can only generate together, so with
    `sharded` all ranks must call it: if any has places, a rank without places answers an empty prompt.
    """
    if not (any(from_all_ranks([bool(places)])) if sharded else places):
        return []
    ids = batch.token_ids()
    prompts = [ids[k][: batch.prompt_lengths[k]] for k in places] or [[tokenizer.end_id]]
    references = [ids[k][batch.prompt_lengths[k] : _first_answer_end(batch, k)] for k in places]
    more: dict[str, Any] = {"synced_gpus": True} if sharded else {}
    responses = generate(net, tokenizer, prompts, config, cancelled, **more)
    return [
        AnsweredRow(
            batch.indices[k],
            batch.groups[k],
            tokenizer.decode(prompt),
            response,
            parse_response(reference, tokenizer, [tokenizer.end_id]),
        )
        for k, prompt, reference, response in zip(places, prompts, references, responses, strict=False)
    ]


def _first_answer_end(batch: Batch, place: int) -> int:
    """Tokens of a row up to the end of its first answer: a row of a conversation may have several (data.turns all)."""
    start, end = batch.starts[place : place + 2].tolist()
    supervised = batch.predict_from[(batch.predict_from >= start) & (batch.predict_from < end)] + 1 - start
    first = batch.prompt_lengths[place]
    return first + int((supervised == torch.arange(first, first + len(supervised), device=supervised.device)).sum())
