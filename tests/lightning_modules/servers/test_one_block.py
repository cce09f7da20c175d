"""A run with several blocks is refused where one is needed, because no file joins them."""

import pytest

from errors import UserError
from lightning_modules.servers.one_block import check_one_block, several_blocks


@pytest.mark.parametrize("thoughts", [None, 0.0, 0.97, 1.0, 1.05])
def test_a_run_with_whole_thoughts_writes_one_block(thoughts: float | None) -> None:
    assert several_blocks("none", thoughts) == ""
    check_one_block("none", thoughts, "runs/demo")


@pytest.mark.parametrize(
    ("split", "thoughts", "reason"),
    [
        ("sentence", 1.0, "data.steps.split sentence"),
        ("paragraph", None, "data.steps.split paragraph"),
        ("none", 2.4, "had 2.40 think blocks"),
    ],
)
def test_a_run_with_several_blocks_is_refused_with_the_way_out(split: str, thoughts: float | None, reason: str) -> None:
    with pytest.raises(UserError, match=reason) as error:
        check_one_block(split, thoughts, "runs/demo/1")
    assert "no file joins the blocks" in str(error.value)
    assert "--model.start runs/demo/1 --data.steps.split none" in str(error.value)
