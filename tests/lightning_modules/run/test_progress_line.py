import pytest

from lightning_modules.run.progress_line import tokens_left


def test_answers_that_all_run_to_the_limit_are_counted_down_exactly() -> None:
    assert [tokens_left(0, 64, tokens, 100) for tokens in (0, 640, 6400)] == [6400, 5760, 0]
    assert tokens_left(32, 64, 3200, 100) == 3200


def test_answers_that_end_early_are_expected_to_go_on_ending() -> None:
    """Each of 64 answers ends after a token with probability 1/50: of 1,000 tokens 20 were the last."""
    assert tokens_left(20, 64, 1000, 10_000) == pytest.approx(44 * 50)
    assert tokens_left(64, 64, 3100, 10_000) == 0
