"""The choice of tokens for requests whose settings of decoding differ.

The rows of a step with equal settings are one group, and each group has a TokenChoice. So a sequence is written as in
a batch of its own settings, and the passes of the model are shared by all.
"""

from dataclasses import astuple
from typing import Any

import torch
from torch import Tensor

from lightning_modules.generation.decoding import Decoding
from lightning_modules.generation.token_choice import Request, TokenChoice, Written

KEPT = 8  # choices without a sequence that are kept: their tables cost time to make


class ChoiceBySettings:
    """Chooses tokens for the sequences in `slots` slots. Each request may have its own decoding; all with the same
    max_new_tokens as `decoding`, the one of requests without."""

    def __init__(self, decoding: Decoding, slots: int, device: torch.device) -> None:
        self.decoding, self.settings, self.device = decoding, decoding.settings, device
        self.ended = torch.ones(slots, dtype=torch.bool, device=device)
        self._choices: dict[Any, TokenChoice] = {}  # by settings; the one that was used last is the last
        self._by_slot: list[TokenChoice | None] = [None] * slots

    def start(self, slot: int, request: Request) -> None:
        """Begin the sequence of a request in a slot."""
        self._by_slot[slot] = choice = self._choice(request.decoding or self.decoding)
        choice.start(slot, request._replace(decoding=None))
        self.ended[slot] = False

    def step(self, logits: Tensor, slots: Tensor) -> Tensor:
        """Return the next token of the sequences in these slots, (B,) int64. logits: (B, vocabulary)."""
        groups: dict[int, tuple[TokenChoice, list[int]]] = {}
        for line, slot in enumerate(slots.tolist()):
            choice = self._by_slot[slot]
            assert choice is not None
            groups.setdefault(id(choice), (choice, []))[1].append(line)
        chosen = torch.zeros(len(slots), dtype=torch.int64, device=self.device)
        for choice, lines in groups.values():
            at = torch.tensor(lines, device=self.device)
            mine = slots[at]
            choice.ended[mine] |= self.ended[mine]  # of sequences that were cancelled
            chosen[at] = choice.step(logits if len(groups) == 1 else logits[at], mine)
            self.ended[mine] = choice.ended[mine]
        return chosen

    def cancel(self, slot: int) -> None:
        """Let the sequence of a slot write nothing more."""
        self.ended[slot] = True

    def written(self, slot: int) -> Written:
        """Return what the sequence in a slot has written."""
        choice = self._by_slot[slot]
        assert choice is not None
        return choice.written(slot)

    def _choice(self, decoding: Decoding) -> TokenChoice:
        key = astuple(decoding.settings)
        if (choice := self._choices.pop(key, None)) is None:
            assert decoding.settings.max_new_tokens == self.settings.max_new_tokens
            choice = TokenChoice(decoding, len(self.ended), self.device)
        self._choices[key] = choice
        used = {id(one) for one, ended in zip(self._by_slot, self.ended.tolist(), strict=True) if not ended}
        idle = [one for one, kept in self._choices.items() if id(kept) not in used and one != key]
        for one in idle[: max(0, len(idle) - KEPT)]:
            del self._choices[one]
        return choice
