"""From logits to the next token of each sequence, and the tokens that were written so far.

Sequences have slots, numbers from 0. A slot's state is a few numbers in tensors on the device, so the host never waits
for a token. The choice of a sequence depends on its own logits and its own seed only: a batch of any size, in any
order, gives the same.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from lightning_modules.generation.decoding import Decoding, DecodingSettings
from lightning_modules.generation.think_control import ThinkControl


class Request(NamedTuple):
    """A prompt to answer."""

    ids: Sequence[int]  # of the prompt, without padding
    seed: int = 0  # of sampling
    limit: int | None = None  # most tokens of this response, if fewer than max_new_tokens
    decoding: Decoding | None = None  # its own, for ChoiceBySettings; None: that of all


class Written(NamedTuple):
    """What was written for a request."""

    ids: list[int]  # with the end id, if it was written
    opened: bool = False  # the prompt ended within a thought
    forced: Sequence[bool] = ()  # for each id, whether the control of thinking wrote it; empty if no control is on
    cut: str | None = None  # why thinking was cut: budget, limit or loop
    masked: float | None = None  # probability that masks took away; None if no control is on
    confidence: float | None = None  # mean log-probability of the tokens that the model chose; None if not asked for


class Choice(Protocol):
    """What chooses tokens: TokenChoice, or ChoiceBySettings if the settings of requests differ."""

    settings: DecodingSettings
    ended: Tensor  # (slots,) bool

    def start(self, slot: int, request: Request) -> None: ...
    def step(self, logits: Tensor, slots: Tensor) -> Tensor: ...
    def written(self, slot: int) -> Written: ...


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
        self.opened = [False] * slots
        self.control = ThinkControl(decoding.rules, slots, longest, device) if decoding.rules is not None else None
        self.forced = torch.zeros(slots, longest if self.control else 0, dtype=torch.bool, device=device)
        # Sum of log-probabilities of the tokens that the model chose, and their number
        self.confidence = torch.zeros(slots, 2, dtype=torch.float64, device=device) if decoding.confidence else None

    def start(self, slot: int, request: Request) -> None:
        """Begin the sequence of a request in a slot."""
        if request.decoding not in (None, self.decoding):
            raise ValueError("requests with settings of their own need ChoiceBySettings")
        longest = self.settings.max_new_tokens
        self.count[slot], self.ended[slot] = 0, False
        self.opened[slot] = self.decoding.opens(request.ids)
        if self.control is not None:
            self.control.start(slot, self.opened[slot])
        if self.confidence is not None:
            self.confidence[slot] = 0
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
        going = ~self.ended[slots]
        at = self.count[slots].clamp(max=self.tokens.shape[1] - 1)
        forced = None
        if self.control is None:
            chosen = self._pick(logits, slots)
        else:
            left = self.limit[slots] - self.count[slots]
            chosen, forced = self.control.choose(
                logits.float(), slots, left, going, lambda some: self._pick(some, slots)
            )
        if self.confidence is not None:
            own = going if forced is None else going & ~forced
            self.confidence[slots] += _confidence(logits.float(), chosen) * own[:, None]
        self.tokens[slots, at] = torch.where(going, chosen, self.tokens[slots, at])
        if self.control is not None and forced is not None:
            self.forced[slots, at] = torch.where(going, forced, self.forced[slots, at])
            self.control.note(self.tokens, at, slots, forced)
        self.count[slots] += going
        is_end = (chosen[:, None] == self.ends).any(-1)
        self.ended[slots] |= is_end | (self.count[slots] >= self.limit[slots])
        return chosen

    def _pick(self, logits: Tensor, slots: Tensor) -> Tensor:
        """The token of each line of logits, by the settings of sampling."""
        if self.draws is None:
            return logits.max(-1).indices  # a third of the time of argmax on a CPU
        draw = self.draws[slots, self.count[slots].clamp(max=self.draws.shape[1] - 1)]
        return sample(logits.float(), draw, self.settings.temperature, self.settings.top_p)

    def written(self, slot: int) -> Written:
        """Return what the sequence in a slot has written."""
        count = int(self.count[slot])
        written = Written(self.tokens[slot, :count].tolist(), self.opened[slot])
        if self.control is not None:
            forced = self.forced[slot, :count].tolist()
            written = written._replace(forced=forced, cut=self.control.cut(slot), masked=self.control.masked(slot))
        if self.confidence is not None:
            total, number = self.confidence[slot].tolist()
            written = written._replace(confidence=total / max(number, 1))
        return written


def _confidence(logits: Tensor, chosen: Tensor) -> Tensor:
    """(B, 2): the log-probability of the chosen token in the model's own distribution, and 1."""
    chosen_logits = logits.gather(1, chosen[:, None])[:, 0]
    log_probability = chosen_logits - logits.logsumexp(-1)
    return torch.stack([log_probability, torch.ones_like(log_probability)], 1).double()


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
