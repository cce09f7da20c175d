"""Drives TokenChoice with logits that a test chooses, in place of a model's."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from datamodules.tokens.tokenizer import ThinkTokenizer
from lightning_modules.generation.decoding import Decoding, DecodingSettings
from lightning_modules.generation.think_response import ThinkResponse, respond
from lightning_modules.generation.token_choice import Request, TokenChoice, Written

CPU = torch.device("cpu")
Logits = Callable[[int, int], Tensor]  # of the row and the step


class Watched(TokenChoice):
    """Fails in a state without a legal token."""

    def _pick(self, logits: Tensor, slots: Tensor) -> Tensor:
        assert (logits > -torch.inf).any(-1).all()
        return super()._pick(logits, slots)


def drive(
    tokenizer: ThinkTokenizer,
    logits: Logits,
    rows: Sequence[int] = (0,),
    prompts: Sequence[list[int]] = ([5],),
    choice: TokenChoice | None = None,
    limit: int | None = None,
    **given: Any,
) -> list[Written]:
    """Return what is written for these rows as one batch."""
    decoding = Decoding.of(tokenizer, None, DecodingSettings(**{"max_new_tokens": 40} | given))
    choice = choice or Watched(decoding, len(rows), CPU)
    for slot, row in enumerate(rows):
        choice.start(slot, Request(prompts[slot % len(prompts)], seed=row, limit=limit))
    slots = torch.arange(len(rows))
    for step in range(decoding.settings.max_new_tokens):
        choice.step(torch.stack([logits(row, step) for row in rows]), slots)
    assert choice.ended.all()
    return [choice.written(slot) for slot in range(len(rows))]


def drive_one(tokenizer: ThinkTokenizer, logits: Logits, **given: Any) -> ThinkResponse:
    """Return the response to one prompt."""
    return respond(drive(tokenizer, logits, **given)[0], tokenizer, [tokenizer.end_id])


def scripted(tokenizer: ThinkTokenizer, *pieces: str) -> Logits:
    """A model that wants to write these pieces, whatever was written; "[", "]" and "." are the tags and the end, and
    for "_" it has no wish. Else it wants the end, or if that is illegal an x."""
    ids = ids_of(tokenizer, *pieces)

    def logits(row: int, step: int) -> Tensor:
        wanted = torch.zeros(len(tokenizer))
        wanted[tokenizer.end_id], wanted[tokenizer.encode(["x"])[0]] = 5.0, 4.0
        if step < len(ids) and ids[step] >= 0:
            wanted[ids[step]] = 10.0
        return wanted

    return logits


def ids_of(tokenizer: ThinkTokenizer, *pieces: str) -> list[int]:
    fixed = {"[": [tokenizer.open_id], "]": [tokenizer.close_id], ".": [tokenizer.end_id], "_": [-1]}
    return [i for piece in pieces for i in fixed.get(piece, tokenizer.encode([piece])[0])]
