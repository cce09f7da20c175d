"""Held-out rows answered by the model, beside the responses that the data has."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import torch

from datamodules.batches.collate import Batch
from datamodules.tokens.tokenizer import ThinkTokenizer
from lightning_modules.evaluation.think_scores import AnsweredRow
from lightning_modules.evaluation.votes import same_answer, vote
from lightning_modules.generation.decoding import Decoding, DecodingSettings
from lightning_modules.generation.generate import generate
from lightning_modules.generation.memory import ROWS
from lightning_modules.generation.think_response import ThinkResponse, parse_response
from lightning_modules.generation.token_choice import Request
from lightning_modules.net.think_net import ThinkNet
from lightning_modules.ranks import from_all_ranks, share_of_rank


@dataclass
class EvalSettings:
    """What validation and test do beside the loss."""

    rows: int = 64
    """Number of held-out rows that the model answers at each validation. Default 64. 0 reports the loss only, which is
    faster; more rows make the scores more precise."""
    samples: int = 2
    """Number of responses of each kind in samples.md at each validation: right, wrong, cut off, caught in a loop,
    malformed, contradicted; and of the first rows, which stay the same. Default 2. 0 writes their numbers only."""
    decoding: DecodingSettings = field(default_factory=DecodingSettings)
    """How the model answers them."""


class HeldOutRow(NamedTuple):
    """A held-out row that the model will answer."""

    row: int
    group: str
    prompt: list[int]
    reference: list[int]  # the data's response
    others: tuple[list[int], ...] = ()  # the responses of further rows that have the same prompt


def held_out_rows(batch: Batch, places: Sequence[int]) -> list[HeldOutRow]:
    """Return some rows of a batch, given by their places in it."""
    ids = batch.token_ids()
    return [
        HeldOutRow(
            batch.indices[k],
            batch.groups[k],
            ids[k][: batch.prompt_lengths[k]],
            ids[k][batch.prompt_lengths[k] : _first_answer_end(batch, k)],
        )
        for k in places
    ]


def questions(rows: Sequence[HeldOutRow]) -> list[HeldOutRow]:
    """Return this rank's share of the different prompts in the rows of all ranks. Every rank must call it.

    Rows with equal prompts are one question: a greedy answer to it would count several times.
    """
    asked: dict[tuple[int, ...], list[HeldOutRow]] = {}
    for row in sorted(from_all_ranks(list(rows)), key=lambda row: row.row):
        asked.setdefault(tuple(row.prompt), []).append(row)
    different = [first._replace(others=tuple(one.reference for one in more)) for first, *more in asked.values()]
    return share_of_rank(different)


def answer_rows(
    net: ThinkNet,
    tokenizer: ThinkTokenizer,
    decoding: Decoding,
    rows: Sequence[HeldOutRow],
    cancelled: Callable[[], bool],
    progress: Callable[[int, int, int], None],
    sharded: bool,
) -> list[AnsweredRow]:
    """Return the model's responses to rows, in their order. Once `cancelled()` is True, responses are missing.
    `progress` gets the number of rows, of responses that ended, and of tokens.

    Sharded ranks can only generate together, so with `sharded` all ranks must call it, also those without rows.
    """
    more: dict[str, Any] = {}
    if sharded:
        more = {"synced_gpus": True, "batches": max(from_all_ranks([-(-len(rows) // ROWS)]))}
    requests = [Request(row.prompt) for row in rows]
    count = partial(progress, len(rows))
    responses = dict(generate(net, tokenizer, requests, decoding, cancelled=cancelled, progress=count, **more))
    return [
        AnsweredRow(
            row.row,
            row.group,
            tokenizer.decode(row.prompt),
            responses[k],
            reference_of(row, tokenizer),
            1 + len(row.others),
        )
        for k, row in enumerate(rows)
        if k in responses
    ]


def reference_of(row: HeldOutRow, tokenizer: ThinkTokenizer) -> ThinkResponse:
    """The data's response; of several to one question, the first with the answer that most of them have."""
    known = [parse_response(ids, tokenizer, [tokenizer.end_id]) for ids in (row.reference, *row.others)]
    answers = [one.answer if one.finished else None for one in known]
    return known[vote(answers, same_answer).place or 0] if len(known) > 1 else known[0]


def _first_answer_end(batch: Batch, place: int) -> int:
    """Tokens of a row up to the end of its first answer: a row of a conversation may have several (data.turns all)."""
    start, end = batch.starts[place : place + 2].tolist()
    supervised = batch.predict_from[(batch.predict_from >= start) & (batch.predict_from < end)] + 1 - start
    first = batch.prompt_lengths[place]
    return first + int((supervised == torch.arange(first, first + len(supervised), device=supervised.device)).sum())
