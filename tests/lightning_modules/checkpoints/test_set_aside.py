"""Going on from an older checkpoint keeps the files of the left branch apart."""

import csv
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_modules.checkpoints.checkpoint_file import step_of, write_checkpoint
from lightning_modules.checkpoints.set_aside import set_aside, split_metrics
from lightning_modules.run.folder import Run


@pytest.fixture
def run(tmp_path: Path, checkpoint: dict[str, Any]) -> Run:
    """A run with checkpoints of steps 2, 4 and 6, the best of step 4, and metrics."""
    run = Run(tmp_path)
    for name, step in (("step-0000002", 2), ("step-0000004", 4), ("step-0000006", 6), ("last", 6), ("best", 4)):
        write_checkpoint(checkpoint | {"global_step": step}, run.checkpoints / f"{name}.ckpt")
    run.metrics.write_text("loss,step\n" + "".join(f"{7 - step}.5,{step}\n" for step in range(1, 7)))
    (tmp_path / "events.out.tfevents.1").write_text("events")
    return run


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    ("step", "stays", "moves"),
    [
        (2, ["step-0000002.ckpt"], ["best.ckpt", "last.ckpt", "step-0000004.ckpt", "step-0000006.ckpt"]),
        (4, ["best.ckpt", "step-0000002.ckpt", "step-0000004.ckpt"], ["last.ckpt", "step-0000006.ckpt"]),
    ],
)
def test_later_files_move_and_earlier_ones_stay(run: Run, step: int, stays: list[str], moves: list[str]) -> None:
    contents = {path.name: path.read_bytes() for path in run.checkpoints.iterdir()}
    folder = set_aside(run, run.numbered(step), step)
    assert folder is not None and folder.parent == run.folder / "set-aside"
    assert names(run.checkpoints) == stays
    assert names(folder) == sorted([*moves, "events.out.tfevents.1", "metrics.csv"])
    for path in (*run.checkpoints.iterdir(), *folder.glob("*.ckpt")):
        assert path.read_bytes() == contents[path.name]
    assert [row["step"] for row in csv.DictReader(run.metrics.open())] == [str(k) for k in range(1, step + 1)]
    assert [row["step"] for row in csv.DictReader((folder / "metrics.csv").open())] == [
        str(k) for k in range(step + 1, 7)
    ]


def test_the_newest_checkpoint_leaves_all_as_it_is(run: Run) -> None:
    assert set_aside(run, run.last, 6) is None
    assert len(names(run.checkpoints)) == 5
    assert not (run.folder / "set-aside").exists()


def test_a_damaged_checkpoint_and_damaged_metrics_are_kept_apart(run: Run) -> None:
    os.truncate(run.last, 100)
    run.metrics.write_bytes(b"\xff\xfe\x00 no table")
    folder = set_aside(run, run.numbered(6), 6)
    assert folder is not None
    assert names(folder) == ["events.out.tfevents.1", "last.ckpt", "metrics.csv"]
    assert run.metrics.read_text() == ""


def test_a_line_that_a_kill_has_cut_does_not_make_metrics_damaged(run: Run) -> None:
    with run.metrics.open("a") as file:
        file.write("3.5")
    kept, moved = split_metrics(run.metrics, 4)
    assert [row["step"] for row in csv.DictReader(kept.splitlines())] == ["1", "2", "3", "4"]
    assert [row["step"] for row in csv.DictReader(moved.splitlines())] == ["5", "6"]


def test_the_step_of_a_checkpoint_is_read_without_its_tensors(run: Run) -> None:
    assert step_of(run.best) == 4
    run.best.write_bytes(b"nothing")
    assert step_of(run.best) is None and step_of(run.folder / "missing.ckpt") is None


@given(st.lists(st.integers(0, 30), max_size=30), st.integers(0, 30))
def test_the_two_parts_of_metrics_hold_all_lines_in_order(tmp_path_factory: Any, steps: list[int], step: int) -> None:
    path = tmp_path_factory.mktemp("metrics") / "metrics.csv"
    path.write_text("val/loss,step\n" + "".join(f'"1,{k}",{k}\n' for k in steps))
    kept, moved = (list(csv.DictReader(part.splitlines())) for part in split_metrics(path, step))
    assert [int(row["step"]) for row in kept] == [k for k in steps if k <= step]
    assert [int(row["step"]) for row in moved] == [k for k in steps if k > step]
    assert all(row["val/loss"] == f"1,{row['step']}" for row in kept + moved)
