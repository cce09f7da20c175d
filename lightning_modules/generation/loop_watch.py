"""Loops: the same tokens again and again."""

import torch
from torch import Tensor


class LoopWatch:
    """Counts how often the last `length` tokens of a sequence stand in it without overlap.

    Windows are compared by their hashes, 64 bits, so a step costs as much as reading one number for each earlier token.
    """

    def __init__(self, length: int, slots: int, longest: int, device: torch.device) -> None:
        self.length = length
        self.hashes = torch.zeros(slots, longest, dtype=torch.int64, device=device)  # of the window that ends there
        self.counts = torch.zeros(slots, longest, dtype=torch.int64, device=device)
        generator = torch.Generator().manual_seed(0)
        odd = torch.randint(2**62, (length,), generator=generator) * 2 + 1
        self.factors = odd.to(device)
        self.back = torch.arange(length, device=device)
        self.places = torch.arange(longest, device=device)

    def times(self, tokens: Tensor, at: Tensor, slots: Tensor) -> Tensor:
        """Return how often the last tokens stand in each sequence up to the places `at`, (B,) int64; 0 if there are
        fewer tokens than a window has.

        tokens: (slots, longest). Each sequence must ask for each of its tokens, in order.
        """
        window = tokens[slots[:, None], (at[:, None] - self.back).clamp(min=0)]
        hashes = ((window + 1) * self.factors).sum(-1)  # wraps around
        earlier = (self.places >= self.length - 1) & (self.places <= at[:, None] - self.length)
        equal = earlier & (self.hashes[slots] == hashes[:, None])
        last = torch.where(equal, self.places, -1).amax(-1)
        before = self.counts[slots, last.clamp(min=0)]
        times = torch.where(last >= 0, before, 0) + 1
        self.hashes[slots, at], self.counts[slots, at] = hashes, times
        return torch.where(at >= self.length - 1, times, 0)
