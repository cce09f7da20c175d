"""Loss by role, and probabilities of the tags, over all batches and ranks."""

import torch
from torch import Tensor
from torchmetrics import Metric

from datamodules.text.segments import Role
from lightning_modules.net.think_net import LossSums
from lightning_modules.ranks import from_all_ranks


class RoleLoss(Metric):
    """Mean loss per supervised token, in nats, of all and of each role. Batch size and ranks make no difference."""

    full_state_update = False
    losses: Tensor
    tokens: Tensor

    def __init__(self) -> None:
        super().__init__()
        for state in ("losses", "tokens"):
            self.add_state(state, torch.zeros(len(Role), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, sums: LossSums) -> None:
        self.losses = self.losses + sums.losses  # not in place: Lightning evaluates in inference mode
        self.tokens = self.tokens + sums.tokens

    def snapshot(self) -> list[dict[str, Tensor]]:
        """Return the sums of each rank, for a checkpoint: a state dict has no metrics. Every rank must call it."""
        return from_all_ranks([{"losses": self.losses.cpu(), "tokens": self.tokens.cpu()}])

    def restore(self, ranks: list[dict[str, Tensor]], rank: int, world_size: int) -> None:
        """Set this rank's sums from a snapshot. If the number of ranks changed, rank 0 gets all sums."""
        if len(ranks) == world_size:
            mine = ranks[rank]
        else:
            factor = 1.0 if rank == 0 else 0.0
            mine = {name: factor * torch.stack([one[name] for one in ranks]).sum(0) for name in ranks[0]}
        self.losses, self.tokens = (mine[name].to(self.device) for name in ("losses", "tokens"))

    def compute(self) -> dict[str, Tensor]:
        """Return `loss`, `perplexity` (its exponential), and `loss_{role}` for the roles that occurred.

        Empty if there were no tokens.
        """
        if not self.tokens.sum():
            return {}
        loss = self.losses.sum() / self.tokens.sum()
        by_role = {
            f"loss_{role.name.lower()}": self.losses[role] / self.tokens[role] for role in Role if self.tokens[role]
        }
        return {"loss": loss, "perplexity": loss.exp(), **by_role}


class TagScores(Metric):
    """Mean probability and mean rank of each tag, where the reference has it. Rank 1 is the likeliest token."""

    full_state_update = False
    sums: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("sums", torch.zeros(2, 3, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, sums: LossSums) -> None:
        assert sums.tags is not None  # None in training
        self.sums = self.sums + sums.tags

    def compute(self) -> dict[str, Tensor]:
        """Return `tag_prob_open`, `tag_rank_open` and the same of `close`, for the tags that occurred."""
        scores: dict[str, Tensor] = {}
        for name, (number, probability, rank) in zip(("open", "close"), self.sums, strict=True):
            if number:
                scores |= {f"tag_prob_{name}": probability / number, f"tag_rank_{name}": rank / number}
        return scores
