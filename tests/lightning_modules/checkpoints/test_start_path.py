"""The file or folder that model.start names."""

from collections.abc import Callable
from pathlib import Path

import pytest

from errors import UserError
from lightning_modules.checkpoints.start_path import find_start


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Path]:
    """Makes the folder of a run with empty files of these names as its checkpoints."""

    def run(*names: str) -> Path:
        folder = tmp_path / "runs" / "parent"
        (folder / "checkpoints").mkdir(parents=True)
        (folder / "config.yaml").touch()
        for name in names:
            (folder / "checkpoints" / name).touch()
        return folder

    return run


def test_a_run_gives_its_best_checkpoint_else_its_last(run: Callable[..., Path]) -> None:
    folder = run("best.ckpt", "last.ckpt")
    assert find_start(str(folder)) == folder / "checkpoints" / "best.ckpt"
    (folder / "checkpoints" / "best.ckpt").unlink()
    assert find_start(str(folder)) == folder / "checkpoints" / "last.ckpt"
    last = folder / "checkpoints" / "last.ckpt"
    assert find_start(str(last)) == last


def test_a_path_without_weights_is_refused_with_a_way_out(
    run: Callable[..., Path], tmp_path: Path, in_tmp: Path
) -> None:
    folder = run("last.ckpt")
    cases: dict[str, tuple[str, str]] = {
        "nowhere": ("does not exist", "Give a run's folder"),
        "runs": ("is neither a run's folder nor that of an adapter", "Did you mean runs/parent?"),
        "empty": ("is a run without a checkpoint", "Give another run"),
        "model": ("is a whole model", "Set model.name to it instead"),
        "bare": ("is neither a run's folder nor that of an adapter", "Give a run's folder"),
    }
    for name, file in (("empty", "config.yaml"), ("model", "config.json"), ("bare", "notes.txt")):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).touch()
    for given, words in cases.items():
        with pytest.raises(UserError) as raised:
            find_start(given)
        assert str(raised.value).startswith(f"model.start: '{given}' ")
        assert all(word in str(raised.value) for word in words), raised.value
    assert find_start("runs/parent") == folder / "checkpoints" / "last.ckpt"
