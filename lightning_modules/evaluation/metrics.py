"""What is measured: loss by role, every token weighing the same; and whether answers think, end and are right."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from datamodules.text.segments import Role
from lightning_modules.generation.generate import Generation
from lightning_modules.net.think_net import LossSums
from lightning_modules.ranks import from_all_ranks

BOXED = re.compile(r"\\boxed\{((?:[^{}]|\{[^{}]*\})*)\}")


class RoleLoss(Metric):
    """Mean loss per supervised token, in nats: of all, and of each role. The same for any batch size and ranks."""

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
        """The sums of each rank, for a checkpoint: metrics are not part of a state dict."""
        return from_all_ranks([{"losses": self.losses.cpu(), "tokens": self.tokens.cpu()}])

    def restore(self, ranks: list[dict[str, Tensor]], rank: int, world_size: int) -> None:
        """The sums of this rank from a snapshot; where there were more or fewer ranks, all of them on the first."""
        if len(ranks) == world_size:
            mine = ranks[rank]
        else:
            share = 1.0 if rank == 0 else 0.0
            mine = {name: share * torch.stack([one[name] for one in ranks]).sum(0) for name in ranks[0]}
        self.losses, self.tokens = (mine[name].to(self.device) for name in ("losses", "tokens"))

    def compute(self) -> dict[str, Tensor]:
        """`loss`, `perplexity` (its exponential), and `loss_{role}` for the roles that occurred; empty for none."""
        if not self.tokens.sum():
            return {}
        loss = self.losses.sum() / self.tokens.sum()
        by_role = {
            f"loss_{role.name.lower()}": self.losses[role] / self.tokens[role] for role in Role if self.tokens[role]
        }
        return {"loss": loss, "perplexity": loss.exp(), **by_role}


class TagScores(Metric):
    """How sure the model is of the tags where they belong: the mean probability that it gives to each tag at its places
    in the reference, and the tag's mean rank among the vocabulary (1: it is the likeliest token)."""

    full_state_update = False
    sums: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("sums", torch.zeros(2, 3, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, sums: LossSums) -> None:
        assert sums.tags is not None  # in training ranks are not computed
        self.sums = self.sums + sums.tags

    def compute(self) -> dict[str, Tensor]:
        """`tag_prob_open`, `tag_rank_open` and the same of `close`; without those of a tag that did not occur."""
        scores: dict[str, Tensor] = {}
        for name, (number, probability, rank) in zip(("open", "close"), self.sums, strict=True):
            if number:
                scores |= {f"tag_prob_{name}": probability / number, f"tag_rank_{name}": rank / number}
        return scores


@dataclass(frozen=True)
class Answered:
    """A row of the validation set and what the model wrote for it."""

    row: int
    group: str
    prompt: str
    written: Generation
    reference: Generation

    @property
    def matches(self) -> bool:
        return same_answer(self.written, self.reference)

    def as_json(self) -> dict[str, Any]:
        """What `predict` writes."""
        known = {"row": self.row, "reference": self.reference.answer.strip(), "matches": self.matches}
        return known | self.written.as_json(self.prompt)


def same_answer(written: Generation, reference: Generation) -> bool:
    """Whether a finished answer is the reference's: its last \\boxed{} where both have one, else all its text, with
    white space made even. Exact by intention: it never takes a wrong answer for right."""
    if not written.finished:
        return False
    ours, theirs = (BOXED.findall(generation.answer) for generation in (written, reference))
    if ours and theirs:
        return "".join(ours[-1].split()) == "".join(theirs[-1].split())
    return written.answer.split() == reference.answer.split()


def think_scores(answered: Sequence[Answered]) -> dict[str, float]:
    """Shares between 0 and 1 over the rows that were answered, and the mean number of thoughts.

    `think_format`: well-formed thinking. `finished`: ended by itself. `answer_match`, and by group. Empty for no rows.
    """
    if not answered:
        return {}

    def share(rows: Sequence[Answered]) -> float:
        return sum(row.matches for row in rows) / len(rows)

    scores = {
        "answered": float(len(answered)),
        "think_format": sum(row.written.well_formed for row in answered) / len(answered),
        "finished": sum(row.written.finished for row in answered) / len(answered),
        "thoughts": sum(len(row.written.thoughts) for row in answered) / len(answered),
        "answer_match": share(answered),
    }
    groups = sorted({row.group for row in answered})
    if len(groups) > 1:
        for group in groups:
            rows = [row for row in answered if row.group == group]
            scores |= {f"answered/{group}": float(len(rows)), f"answer_match/{group}": share(rows)}
    return scores
