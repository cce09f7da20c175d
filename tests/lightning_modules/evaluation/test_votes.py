import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_modules.evaluation.votes import Vote, vote


def same(one: str, other: str) -> bool:
    return one.strip().lower() == other.strip().lower()


@pytest.mark.parametrize(
    ("answers", "weights", "expected"),
    [
        (["7", "8", " 7"], None, Vote(0, 2 / 3)),
        (["8", "7", "7 "], None, Vote(1, 2 / 3)),
        (["8", "7"], None, Vote(0, 0.5)),  # a tie
        (["8", None, "7", "7", None], None, Vote(2, 0.4)),  # cut-off answers lower the share
        ([None, None], None, Vote(None, 0.0)),
        ([], None, Vote(None, 0.0)),
        (["8", "7", "7"], [0.9, 0.4, 0.4], Vote(0, 0.9 / 1.7)),
        (["8", "7", "7"], [0.7, 0.4, 0.4], Vote(1, 0.8 / 1.5)),
        (["8", None], [0.5, 0.5], Vote(0, 0.5)),
        (["8"], [0.0], Vote(None, 0.0)),
    ],
)
def test_the_answer_with_most_votes_wins(
    answers: list[str | None], weights: list[float] | None, expected: Vote
) -> None:
    found = vote(answers, same, weights)
    assert found.place == expected.place
    assert found.share == pytest.approx(expected.share)


@given(st.lists(st.sampled_from(["a", "A ", "b", "c", None]), max_size=8))
def test_equal_weights_are_no_weights(answers: list[str | None]) -> None:
    plain, weighted = vote(answers, same), vote(answers, same, [0.25] * len(answers))
    assert plain.place == weighted.place and plain.share == pytest.approx(weighted.share)
