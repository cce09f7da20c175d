"""Limits on batches that leave none, or end in the middle of an optimizer step, are refused by their names."""

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamodules.batches.limits import check_limits, used_batches
from errors import UserError

DEFAULTS: dict[str, Any] = {
    "overfit_batches": 0.0, "limit_train_batches": 1.0, "limit_val_batches": 1.0, "fast_dev_run": False,
    "val_check_interval": 1.0, "check_val_every_n_epoch": 1, "log_every_n_steps": 1, "callbacks": [],
}  # fmt: skip
WATCHES = SimpleNamespace(monitor="train/loss")


def check(accumulate: int = 2, **trainer: Any) -> None:
    """12 batches in an epoch and 2 in a validation."""
    check_limits(SimpleNamespace(**DEFAULTS | trainer), 12, accumulate, 2)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("trainer", "message"),
    [
        ({"limit_train_batches": 0.01}, r"limit_train_batches: '0.01' leaves none of the 12 .* share of 0.17"),
        ({"limit_train_batches": 3}, r"limit_train_batches: '3' leaves 3 batches.*Give 2 or 4 batches"),
        ({"limit_train_batches": 1}, r"limit_train_batches: '1' leaves 1 batches.*Give 2 batches"),
        ({"limit_train_batches": 0.3}, r"limit_train_batches: '0.3' leaves 3 batches"),
        ({"overfit_batches": 3}, r"overfit_batches: '3' leaves 3 batches"),
        ({"overfit_batches": 0.01}, r"overfit_batches: '0.01' leaves none of the 12"),
        ({"overfit_batches": 0.4}, r"overfit_batches: '0.4' leaves none of the 2 batches of a validation"),
        ({"limit_val_batches": 0.4}, r"limit_val_batches: '0.4' leaves none of the 2 batches of a validation"),
        ({"val_check_interval": 13}, r"val_check_interval: '13' is more than the 12 batches"),
        ({"log_every_n_steps": 7, "callbacks": [WATCHES]}, r"log_every_n_steps: '7' .* Give 6 or less"),
        (
            {"log_every_n_steps": 2, "callbacks": [WATCHES], "val_check_interval": 2},
            r"log_every_n_steps: '2' comes after the first validation, at step 1, where .* train/loss",
        ),
    ],
)
def test_a_limit_that_cannot_be_followed_is_refused(trainer: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=rf"trainer\.{message}"):
        check(**trainer)


@pytest.mark.parametrize(
    "trainer",
    [
        {}, {"limit_train_batches": 4}, {"limit_train_batches": 99}, {"overfit_batches": 2}, {"limit_val_batches": 0},
        {"limit_train_batches": 1, "limit_val_batches": 1, "fast_dev_run": 1}, {"val_check_interval": 12},
        {"val_check_interval": 13, "check_val_every_n_epoch": None}, {"val_check_interval": None},
        {"val_check_interval": 13, "limit_val_batches": 0}, {"log_every_n_steps": 6, "callbacks": [WATCHES]},
        {"log_every_n_steps": 99, "callbacks": [SimpleNamespace(monitor="val/loss"), SimpleNamespace()]},
    ],
)  # fmt: skip
def test_other_limits_pass(trainer: dict[str, Any]) -> None:
    check(**trainer)


@given(st.integers(1, 1000), st.one_of(st.integers(1, 2000), st.floats(0.001, 1.0)))
def test_the_number_of_batches_is_that_of_lightning(planned: int, limit: int | float) -> None:
    from lightning.fabric.utilities.exceptions import MisconfigurationException
    from lightning.pytorch.trainer.connectors.data_connector import _parse_num_batches
    from lightning.pytorch.trainer.states import RunningStage

    try:
        theirs = _parse_num_batches(RunningStage.TRAINING, planned, limit)
    except MisconfigurationException:
        theirs = 0
    assert used_batches(limit, planned) == theirs
