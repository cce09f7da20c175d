import math

import pytest
import torch

from lightning_modules.evaluation.metrics import Answered, RoleLoss, same_answer, think_scores
from lightning_modules.generation.generate import Generation
from lightning_modules.net.think_net import LossSums


def sums(losses: list[float], tokens: list[int]) -> LossSums:
    return LossSums(torch.tensor(sum(losses)), torch.tensor(losses).double(), torch.tensor(tokens).double(), None)


def test_every_token_weighs_the_same_however_it_is_batched() -> None:
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


def test_a_loss_that_is_not_a_number_is_not_averaged_away() -> None:
    metric = RoleLoss()
    for part in (sums([0, 1, math.nan, 1, 2, 0], [0, 1, 10, 1, 4, 0]), sums([0, 1, 5, 1, 2, 0], [0, 1, 10, 1, 4, 0])):
        metric.update(part)
    figures = {name: float(value) for name, value in metric.compute().items()}
    assert {name for name, value in figures.items() if math.isnan(value)} == {"loss", "perplexity", "loss_thought"}


def test_no_tokens_no_figures() -> None:
    assert RoleLoss().compute() == {}


def written(answer: str, finished: bool = True, thoughts: tuple[str, ...] = ("a",)) -> Generation:
    return Generation("", thoughts, answer, finished, balanced=True)


@pytest.mark.parametrize(
    ("ours", "theirs", "same"),
    [
        ("\n\nx = 7", "x  = 7\n", True),
        ("x = 7", "x = 8", False),
        ("x = 7.", "x = 7", False),
        (r"So \boxed{ 3/4 }.", r"The answer: \boxed{3/4}", True),
        (r"\boxed{1} or \boxed{\frac{1}{2}}", r"\boxed{\frac{1}{2}}", True),
        (r"\boxed{1}", r"\boxed{2}", False),
    ],
)
def test_answers_match_by_box_or_by_words(ours: str, theirs: str, same: bool) -> None:
    assert same_answer(written(ours), written(theirs)) == same
    assert not same_answer(written(ours, finished=False), written(theirs))


def test_scores_are_shares_of_the_rows_answered() -> None:
    rows = [
        Answered(0, "easy", "p", written("7"), written("7")),
        Answered(1, "easy", "p", written("8"), written("7")),
        Answered(2, "hard", "p", written("7", thoughts=()), written("7")),
        Answered(3, "hard", "p", written("7", finished=False), written("7")),
    ]
    assert think_scores(rows) == {
        "answered": 4, "think_format": 0.5, "finished": 0.75, "thoughts": 0.75, "answer_match": 0.5,
        "answered/easy": 2, "answer_match/easy": 0.5, "answered/hard": 2, "answer_match/hard": 0.5,
    }  # fmt: skip
    assert think_scores([]) == {}
