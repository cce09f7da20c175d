"""Continuous batching: a sequence that ends makes room for a waiting one, and no step is spent on a free row."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch

from lightning_modules.generation.decoder import Decoder
from lightning_modules.generation.folded_weights import FoldedWeights
from lightning_modules.generation.memory import longest_of
from lightning_modules.generation.token_choice import Request, TokenChoice, Written

PROMPT_TOKENS = 4096  # of the prompts of one pass, unless a single one has more
WAIT_FOR = 8  # waiting prompts are added when one row in 8 is free: a pass over the weights costs like a step
UNSEEN = 8  # steps on a GPU after which the host looks for sequences that ended; it waits for the GPU then


def write_all(
    weights: FoldedWeights,
    choice: TokenChoice,
    requests: Sequence[Request],
    cancelled: Callable[[], bool],
    progress: Callable[[int, int], None],
) -> Iterator[tuple[int, Written]]:
    """Yield (number of the request, what was written for it) as each ends. `choice` has a slot for each row.

    The requests that may take longest begin first, so that none of them is left alone at the end.
    """
    most = choice.settings.max_new_tokens
    limits = [most if request.limit is None else min(most, request.limit) for request in requests]
    waiting = deque(sorted(range(len(requests)), key=lambda k: (-limits[k], -len(requests[k].ids))))
    every = 1 if weights.device.type == "cpu" else UNSEEN
    longest = longest_of(requests, most) + every
    slots = len(choice.ended)
    decoder = Decoder(weights, slots, longest)
    free = list(range(slots))[::-1]
    rows: list[_Row] = []
    at = following = torch.zeros(0, dtype=torch.int64, device=weights.device)  # slot and next token of each row
    ended = tokens = steps = 0
    while waiting or rows:
        if waiting and free and (not rows or len(free) * WAIT_FOR >= slots):
            added = [_Row(number, free.pop()) for number in _next_prompts(waiting, requests, len(free))]
            for row in added:
                choice.start(row.slot, requests[row.request])
            new = torch.tensor([row.slot for row in added], device=weights.device)
            logits = decoder.add([requests[row.request].ids for row in added])
            at, following = torch.cat([at, new]), torch.cat([following, choice.step(logits, new)])
            rows += added
        else:
            following = choice.step(decoder.step(following), at)
            steps += 1
            if steps % every:
                continue
        over = choice.ended[at].tolist()
        gone = [k for k, is_over in enumerate(over) if is_over]
        written = [choice.written(rows[k].slot) for k in gone]
        ended, tokens = ended + len(gone), tokens + sum(len(one.ids) for one in written)
        going = int(choice.count[at].sum()) - sum(len(one.ids) for one in written)
        progress(ended, tokens + going)
        if cancelled():
            return
        yield from zip((rows[k].request for k in gone), written, strict=True)
        if gone:
            free += [rows[k].slot for k in gone]
            order = decoder.remove(gone)
            rows = [rows[k] for k in order]
            stay = torch.tensor(order, dtype=torch.int64, device=weights.device)
            at, following = at[stay], following[stay]


class _Row(NamedTuple):
    """A row of the decoder."""

    request: int  # its number
    slot: int  # of TokenChoice


def _next_prompts(waiting: "deque[int]", requests: Sequence[Request], most: int) -> list[int]:
    """Take the requests of the next pass out of `waiting`."""
    taken = [waiting.popleft()]
    tokens = len(requests[taken[0]].ids)
    while waiting and len(taken) < most and (tokens := tokens + len(requests[waiting[0]].ids)) <= PROMPT_TOKENS:
        taken.append(waiting.popleft())
    return taken
