"""A replay file holds a broken optimizer step, and the weights before it."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from errors import UserError
from lightning_modules.checkpoints.content import CONTENT_KEY, CheckpointContent
from lightning_modules.checkpoints.replay_file import ReplayFiles, read_replay
from lightning_modules.run.folder import Run
from lightning_modules.update.nonfinite import Attempt


def tuner(content: CheckpointContent, rank: int, weights: dict[str, torch.Tensor]) -> Any:
    """The parts of a tuner that the writer reads."""

    def save(checkpoint: dict[str, Any]) -> None:
        checkpoint[CONTENT_KEY] = content.to_dict()

    strategy = SimpleNamespace(lightning_module_state_dict=lambda: weights)
    return SimpleNamespace(trainer=SimpleNamespace(strategy=strategy), global_rank=rank, on_save_checkpoint=save)


def test_a_step_is_the_same_after_writing_and_reading(
    content: CheckpointContent, make_batch: Callable[..., Any], tmp_path: Path
) -> None:
    files = ReplayFiles(Run(tmp_path))
    attempts = [Attempt(make_batch(*rows), seed, torch.tensor(1.0)) for rows, seed in (((0, 3), 5), ((9,), 6))]
    files.write(tuner(content, 0, {"weight": torch.ones(2)}), 6, attempts)
    assert files.path(6, 0) == tmp_path / "nonfinite" / "step-7-rank-0.replay"
    replay = read_replay(files.path(6, 0))
    assert [batch.row_ids for batch in replay.batches] == [["0", "3"], ["9"]]
    assert torch.equal(replay.batches[1].input_ids, make_batch(9).input_ids)
    assert replay.seeds == [5, 6]
    assert torch.equal(replay.checkpoint["state_dict"]["weight"], torch.ones(2))
    assert CheckpointContent.of(replay.checkpoint).base == content.base


def test_the_weights_of_sharded_ranks_come_from_the_file_of_the_first(
    content: CheckpointContent, make_batch: Callable[..., Any], tmp_path: Path
) -> None:
    files = ReplayFiles(Run(tmp_path))
    attempts = [Attempt(make_batch(0), 5, torch.tensor(1.0))]
    for rank, weights in enumerate([{"weight": torch.ones(2)}, {}]):
        files.write(tuner(content, rank, weights), 6, attempts)
    assert torch.equal(read_replay(files.path(6, 1)).checkpoint["state_dict"]["weight"], torch.ones(2))


@pytest.mark.parametrize("name", ["last.ckpt", "missing.replay"])
def test_another_file_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "last.ckpt").touch()
    with pytest.raises(UserError, match=f"{name}' is not a replay file. Give nonfinite/step-N-rank-R.replay of a run"):
        read_replay(tmp_path / name)
