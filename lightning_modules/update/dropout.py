"""The seed of dropout in each micro-batch."""

import numpy as np
import torch


def seed_dropout(seed: int, batches_done: int, rank: int) -> int:
    """Seed dropout by (seed, batch, rank), so that a resumed fit has the dropout of an uninterrupted one. Return it."""
    chosen = int(np.random.SeedSequence([seed, batches_done, rank]).generate_state(1, np.uint64)[0])
    torch.manual_seed(chosen)
    return chosen
