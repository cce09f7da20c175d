"""From logits to the next token of each sequence, and the tokens that were written so far.

Sequences have slots, numbers from 0. A slot's state is a few numbers in tensors on the device, so the host never waits
for a token. The choice of a sequence depends on its own logits and its own seed only: a batch of any size, in any
order, gives the same.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_modules.generation.decoding import Decoding


class Request(NamedTuple):
    """A prompt to answer."""

    ids: Sequence[int]  # of the prompt, without padding
    seed: int = 0  # of sampling
    limit: int | None = None  # most tokens of this response, if fewer than max_new_tokens


class Written(NamedTuple):
    """What was written for a request."""

    ids: list[int]  # with the end id, if it was written


class TokenChoice:
    """Chooses tokens for the sequences in `slots` slots. `start` gives a slot a new sequence."""

    def __init__(self, decoding: Decoding, slots: int, device: torch.device) -> None:
        self.decoding, self.settings = decoding, decoding.settings
        longest = self.settings.max_new_tokens
        self.tokens = torch.zeros(slots, longest, dtype=torch.int64, device=device)
        self.count = torch.zeros(slots, dtype=torch.int64, device=device)
        self.limit = torch.zeros(slots, dtype=torch.int64, device=device)
        self.ended = torch.ones(
            slots, dtype=torch.bool, device=device
        )  # by an end id or its limit; or the slot is free
        self.ends = torch.tensor(decoding.end_ids, device=device)
        samples = self.settings.temperature > 0
        self.draws = torch.zeros(slots, longest, device=device) if samples else None  # uniform, one for each token

    def start(self, slot: int, request: Request) -> None:
        """Begin the sequence of a request in a slot."""
        longest = self.settings.max_new_tokens
        self.count[slot], self.ended[slot] = 0, False
        self.limit[slot] = longest if request.limit is None else min(longest, request.limit)
        if self.draws is not None:
            generator = torch.Generator().manual_seed(request.seed)
            self.draws[slot] = torch.rand(longest, generator=generator).to(self.draws.device)

    @torch.no_grad()
    def step(self, logits: Tensor, slots: Tensor) -> Tensor:
        """Return the next token of the sequences in these slots, (B,) int64.

        logits: (B, vocabulary) of the last position of each. Sequences that ended write nothing more.
        """
        logits = logits[:, : self.decoding.known_ids]
        chosen = logits.argmax(-1) if self.draws is None else self._sample(logits.float(), slots)
        going = ~self.ended[slots]
        at = self.count[slots].clamp(max=self.tokens.shape[1] - 1)
        self.tokens[slots, at] = torch.where(going, chosen, self.tokens[slots, at])
        self.count[slots] += going
        is_end = (chosen[:, None] == self.ends).any(-1)
        self.ended[slots] |= is_end | (self.count[slots] >= self.limit[slots])
        return chosen

    def _sample(self, logits: Tensor, slots: Tensor) -> Tensor:
        assert self.draws is not None
        draw = self.draws[slots, self.count[slots].clamp(max=self.draws.shape[1] - 1)]
        return sample(logits, draw, self.settings.temperature, self.settings.top_p)

    def written(self, slot: int) -> Written:
        """Return what the sequence in a slot has written."""
        return Written(self.tokens[slot, : int(self.count[slot])].tolist())


def sample(logits: Tensor, draw: Tensor, temperature: float, top_p: float) -> Tensor:
    """Return a token for each row of logits, (B,), by inverse transform sampling.

    logits: (B, V) float32
    draw:   (B,) uniform in [0, 1)
    top_p:  keep the likeliest tokens whose probabilities reach this sum; the token that reaches it is kept
    """
    probabilities = (logits / temperature).softmax(-1)
    order = None
    if top_p < 1:
        probabilities, order = probabilities.sort(stable=True, dim=-1, descending=True)
        before = probabilities.cumsum(-1) - probabilities
        probabilities = probabilities.masked_fill(before >= top_p, 0.0)
    sums = probabilities.cumsum(-1, dtype=torch.float64)
    at = torch.searchsorted(sums, draw.double()[:, None] * sums[:, -1:], right=True)
    # Rounding may lead behind the last token that has a probability
    last = probabilities.shape[-1] - 1 - (probabilities.flip(-1) > 0).int().argmax(-1, keepdim=True)
    at = torch.minimum(at, last)
    return (at if order is None else order.gather(-1, at))[:, 0]
