import math

import pytest
import torch

from lightning_modules.evaluation.role_loss import RoleLoss, TagScores
from lightning_modules.net.think_net import LossSums


def sums(losses: list[float], tokens: list[int]) -> LossSums:
    return LossSums(torch.tensor(sum(losses)), torch.tensor(losses).double(), torch.tensor(tokens).double(), None)


def test_every_token_has_the_same_weight_in_any_batches() -> None:
    parts = [sums([0, 1, 8, 1, 2, 0], [0, 1, 10, 1, 4, 0]), sums([0, 0, 0, 0, 3, 1], [0, 0, 0, 0, 1, 1])]
    whole = RoleLoss()
    whole.update(sums([0, 1, 8, 1, 5, 1], [0, 1, 10, 1, 5, 1]))
    batched = RoleLoss()
    for part in parts:
        batched.update(part)
    assert whole.compute() == batched.compute()
    figures = {name: float(value) for name, value in whole.compute().items()}
    assert figures["loss"] == pytest.approx(16 / 18)
    assert figures["perplexity"] == pytest.approx(math.exp(16 / 18))
    assert figures["loss_answer"] == pytest.approx(1.0)
    assert figures["loss_thought"] == pytest.approx(0.8)
    assert "loss_prompt" not in figures


def test_a_nan_stays_in_the_mean() -> None:
    metric = RoleLoss()
    for part in (sums([0, 1, math.nan, 1, 2, 0], [0, 1, 10, 1, 4, 0]), sums([0, 1, 5, 1, 2, 0], [0, 1, 10, 1, 4, 0])):
        metric.update(part)
    figures = {name: float(value) for name, value in metric.compute().items()}
    assert {name for name, value in figures.items() if math.isnan(value)} == {"loss", "perplexity", "loss_thought"}


def test_without_tokens_there_are_no_figures() -> None:
    assert RoleLoss().compute() == {}


def of_rank(rank: int) -> RoleLoss:
    metric = RoleLoss()
    metric.update(sums([0, 1.0, rank, 1, 2, 0], [0, 1, 10 * (rank + 1), 1, 4, 0]))
    return metric


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_restored_ranks_hold_the_saved_sums_once(world_size: int) -> None:
    """Also if there are more or fewer ranks than before: no token counts twice and none is lost."""
    saved = [part for rank in range(2) for part in of_rank(rank).snapshot()]
    restored = [RoleLoss() for _ in range(world_size)]
    for rank, metric in enumerate(restored):
        metric.restore(saved, rank, world_size)
    for name in ("losses", "tokens"):
        before = sum(getattr(of_rank(rank), name) for rank in range(2))
        assert torch.equal(sum(getattr(metric, name) for metric in restored), before)


def test_each_rank_gets_its_own_sums_back_if_their_number_is_the_same() -> None:
    saved = [part for rank in range(2) for part in of_rank(rank).snapshot()]
    for rank in range(2):
        metric = RoleLoss()
        metric.restore(saved, rank, 2)
        assert torch.equal(metric.losses, of_rank(rank).losses) and torch.equal(metric.tokens, of_rank(rank).tokens)


def test_tag_scores_are_means_over_the_places_of_a_tag() -> None:
    scores = TagScores()
    for tags in ([[1, 0.5, 3], [0, 0, 0]], [[3, 1.5, 5], [0, 0, 0]]):
        zeros = torch.zeros(6).double()
        scores.update(LossSums(torch.tensor(0.0), zeros, zeros, torch.tensor(tags).double()))
    assert {name: float(value) for name, value in scores.compute().items()} == {
        "tag_prob_open": 0.5,
        "tag_rank_open": 2,
    }
