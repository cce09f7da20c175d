"""Whether a run writes one think block in an answer, as servers expect that know one block only.

No file beside the weights joins the blocks of a model. When it closes a block nothing has decided yet whether another
one or the answer comes: the tag is the same, and the next token decides. So a server that ends thinking at a closing
tag ends it at the first one. docs/serving.md has what was tried.
"""

from errors import UserError

MOST = 1.05  # blocks per answer, on average: a rare second one


def several_blocks(split: str, thoughts: float | None) -> str:
    """Return why a run writes several blocks; empty if it writes one.

    `split`: `data.steps.split` of its training. `thoughts`: the mean number per answer after training, if measured.
    """
    if split != "none":
        return f"the run learned a think block for each step (data.steps.split {split})"
    if thoughts is not None and thoughts > MOST:
        return f"its answers after training had {thoughts:.2f} think blocks on average"
    return ""


def check_one_block(split: str, thoughts: float | None, run: str) -> None:
    """Raise UserError if a run writes several blocks."""
    if reason := several_blocks(split, thoughts):
        fix = f"train on: --model.start {run} --data.steps.split none, with the other settings of the run"
        raise UserError("--single_block", None, f"{reason}, and no file joins the blocks that a model writes", fix)
