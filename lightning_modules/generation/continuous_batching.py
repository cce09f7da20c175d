"""Continuous batching: a sequence that ends makes room for a waiting one, and no step is spent on a free row."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch

from lightning_modules.generation.decoder import Decoder
from lightning_modules.generation.folded_weights import FoldedWeights
from lightning_modules.generation.memory import longest_of
from lightning_modules.generation.token_choice import Choice, Request, TokenChoice, Written

PROMPT_TOKENS = 4096  # of the prompts of one pass, unless a single one has more
WAIT_FOR = 8  # waiting prompts are added when one row in 8 is free: a pass over the weights costs like a step
UNSEEN = 8  # steps on a GPU after which the host looks for sequences that ended; it waits for the GPU then


class Row(NamedTuple):
    """A row of the decoder."""

    number: int  # of its request
    slot: int  # of the choice


class ContinuousBatch:
    """Sequences that are written together. A request may be added, and one may leave, between any two steps.

    positions: most tokens of a prompt and its response
    """

    def __init__(self, weights: FoldedWeights, choice: Choice, positions: int) -> None:
        self.choice, self.slots = choice, len(choice.ended)
        self.decoder = Decoder(weights, self.slots, positions)
        self.free = list(range(self.slots))[::-1]
        self.rows: list[Row] = []
        # Slot and next token of each row
        self.at = self.following = torch.zeros(0, dtype=torch.int64, device=weights.device)

    def has_room(self) -> bool:
        """Whether it pays to add requests now."""
        return bool(self.free) and (not self.rows or len(self.free) * WAIT_FOR >= self.slots)

    def add(self, asked: Sequence[tuple[int, Request]]) -> None:
        """Begin numbered requests, at most one for each free slot, and choose the first token of each."""
        added = [Row(number, self.free.pop()) for number, _ in asked]
        for row, (_, request) in zip(added, asked, strict=True):
            self.choice.start(row.slot, request)
        new = torch.tensor([row.slot for row in added], device=self.at.device)
        logits = self.decoder.add([request.ids for _, request in asked])
        self.at = torch.cat([self.at, new])
        self.following = torch.cat([self.following, self.choice.step(logits, new)])
        self.rows += added

    def step(self) -> None:
        """Choose the next token of each row."""
        self.following = self.choice.step(self.decoder.step(self.following), self.at)

    def ended(self) -> list[int]:
        """Return the rows that ended, by their place in `rows`."""
        return [k for k, over in enumerate(self.choice.ended[self.at].tolist()) if over]

    def remove(self, gone: Sequence[int]) -> None:
        """Free the rows at these places."""
        if gone:
            self.free += [self.rows[k].slot for k in gone]
            order = self.decoder.remove(gone)
            self.rows = [self.rows[k] for k in order]
            stay = torch.tensor(order, dtype=torch.int64, device=self.at.device)
            self.at, self.following = self.at[stay], self.following[stay]


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
    order = sorted(range(len(requests)), key=lambda k: (-limits[k], -len(requests[k].ids)))
    waiting = deque((number, requests[number]) for number in order)
    every = 1 if weights.device.type == "cpu" else UNSEEN
    batch = ContinuousBatch(weights, choice, longest_of(requests, most) + every)
    ended = tokens = steps = 0
    while waiting or batch.rows:
        if waiting and batch.has_room():
            batch.add(next_prompts(waiting, len(batch.free)))
        else:
            batch.step()
            steps += 1
            if steps % every:
                continue
        gone = batch.ended()
        finished = [batch.rows[k] for k in gone]
        written = [choice.written(row.slot) for row in finished]
        ended, tokens = ended + len(gone), tokens + sum(len(one.ids) for one in written)
        going = int(choice.count[batch.at].sum()) - sum(len(one.ids) for one in written)
        progress(ended, tokens + going)
        if cancelled():
            return
        yield from zip((row.number for row in finished), written, strict=True)
        batch.remove(gone)


def next_prompts(waiting: "deque[tuple[int, Request]]", most: int) -> list[tuple[int, Request]]:
    """Take the numbered requests of the next pass out of `waiting`."""
    taken = [waiting.popleft()]
    tokens = len(taken[0][1].ids)
    while waiting and len(taken) < most and (tokens := tokens + len(waiting[0][1].ids)) <= PROMPT_TOKENS:
        taken.append(waiting.popleft())
    return taken
