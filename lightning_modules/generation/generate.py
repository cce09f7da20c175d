"""Generation: from prompts to responses. Validation and all commands that ask a model stand on `generate`."""

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import torch

from datamodules.tokens.tokenizer import ThinkTokenizer
from lightning_modules.generation.continuous_batching import write_all
from lightning_modules.generation.decoding import Decoding
from lightning_modules.generation.folded_weights import FoldedWeights, not_foldable_reason
from lightning_modules.generation.memory import ROWS, longest_of, no_room_reason, row_count, token_bytes
from lightning_modules.generation.think_response import ThinkResponse, respond
from lightning_modules.generation.token_choice import Request, TokenChoice, Written
from lightning_modules.generation.with_transformers import generate_batch

if TYPE_CHECKING:
    from lightning_modules.net.think_net import ThinkNet

log = logging.getLogger("thinkwright")
_logged: "WeakSet[ThinkNet]" = WeakSet()  # nets whose reason was logged


def _never() -> bool:
    return False


def _quiet(ended: int, tokens: int) -> None:
    pass


def generate(
    net: "ThinkNet",
    tokenizer: ThinkTokenizer,
    requests: Sequence[Request],
    decoding: Decoding,
    *,
    rows: int | None = None,
    cancelled: Callable[[], bool] = _never,
    progress: Callable[[int, int], None] = _quiet,
    batches: int | None = None,
    **more: Any,
) -> Iterator[tuple[int, ThinkResponse]]:
    """Yield (number of the request, its response) as each response ends, in no order.

    rows:      most sequences that are written at once; None: as many as pay, by memory.row_count
    cancelled: asked after each token; after True nothing more is yielded
    progress:  called after each step with the responses that ended and the tokens that were written so far
    batches:   number of calls of transformers' generate, for ranks that must call it together; further ones are empty
    more:      for transformers' generate
    """
    if not requests and not batches:
        return
    reason = "sharded ranks generate together" if batches is not None or more else not_foldable_reason(net)
    if reason is None:
        rows = min(rows, len(requests)) if rows else row_count(net, requests, decoding.settings.max_new_tokens)
        longest = longest_of(requests, decoding.settings.max_new_tokens)
        reason = no_room_reason(net, rows * longest * token_bytes(net))
    if reason and net not in _logged:
        _logged.add(net)
        log.info(f"transformers' generate is used, not the faster one of this program: {reason}")
    training = net.training
    net.eval()
    try:
        if reason is None:
            weights = FoldedWeights(net, decoding.known_ids)
            choice = TokenChoice(decoding, rows or 1, weights.device)
            written = write_all(weights, choice, requests, cancelled, progress)
        else:
            written = _by_batches(net, tokenizer, requests, decoding, rows or ROWS, cancelled, progress, batches, more)
        for number, one in written:
            yield number, respond(one, tokenizer, decoding.end_ids)
    finally:
        net.train(training)


def _by_batches(
    net: "ThinkNet",
    tokenizer: ThinkTokenizer,
    requests: Sequence[Request],
    decoding: Decoding,
    rows: int,
    cancelled: Callable[[], bool],
    progress: Callable[[int, int], None],
    batches: int | None,
    more: dict[str, Any],
) -> Iterator[tuple[int, Written]]:
    """Yield what transformers' generate writes. The longest prompts come first: they need the most memory, and little
    padding stands beside equal lengths."""
    device = next(net.parameters()).device
    order = sorted(range(len(requests)), key=lambda k: -len(requests[k].ids))
    starts = list(range(0, len(order), rows))
    starts += [len(order)] * ((batches or 0) - len(starts))
    choice = TokenChoice(decoding, max(1, min(rows, len(order))), device)
    ended = tokens = 0
    for start in starts:
        chosen = order[start : start + rows]
        asked = [requests[k] for k in chosen] or [Request([tokenizer.end_id], limit=1)]

        def after_token(before: int = tokens, ended: int = ended) -> bool:
            progress(ended, before + int(choice.count.sum()))
            return cancelled()

        with torch.no_grad():
            written = generate_batch(net, choice, asked, tokenizer.end_id, after_token, **more)
        if written is None:
            return
        ended, tokens = ended + len(chosen), tokens + sum(len(one.ids) for one in written[: len(chosen)])
        progress(ended, tokens)
        yield from zip(chosen, written, strict=False)
        choice.count.zero_()


def in_order(responses: Iterator[tuple[int, ThinkResponse]]) -> Iterator[ThinkResponse]:
    """Yield responses in the order of their requests, each as soon as all before it have ended."""
    waiting: dict[int, ThinkResponse] = {}
    following = 0
    for number, response in responses:
        waiting[number] = response
        while following in waiting:
            yield waiting.pop(following)
            following += 1
