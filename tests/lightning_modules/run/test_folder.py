import os
from pathlib import Path

import pytest

from errors import UserError
from lightning_modules.run.folder import Run, RunSettings, find_checkpoint, new_run, newest_run, run_of


def make(root: Path, name: str, started: str, *checkpoints: str) -> Run:
    run = Run(root / name / started)
    run.checkpoints.mkdir(parents=True)
    (run.folder / "config.yaml").touch()
    for file in checkpoints:
        (run.checkpoints / file).touch()
    return run


def test_a_new_run_never_lands_in_an_old_folder(tmp_path: Path) -> None:
    settings = RunSettings("demo", str(tmp_path))
    folders = {new_run(settings).folder for _ in range(5)}
    assert len(folders) == 5
    assert all(folder.parent == tmp_path / "demo" for folder in folders)


def test_the_newest_run_with_a_checkpoint_is_found_of_one_name_or_of_all(tmp_path: Path) -> None:
    make(tmp_path, "demo", "2026-01-01_00-00-00", "best.ckpt", "last.ckpt")
    wanted = make(tmp_path, "demo", "2026-01-02_00-00-00", "last.ckpt")
    make(tmp_path, "demo", "2026-01-03_00-00-00")  # broke off before its first checkpoint
    other = make(tmp_path, "other", "2026-01-04_00-00-00", "best.ckpt", "last.ckpt")
    assert newest_run(str(tmp_path), "demo").folder == wanted.folder
    assert newest_run(str(tmp_path)).folder == other.folder
    assert find_checkpoint("best", str(tmp_path), "demo") == wanted.last  # it has no best yet
    assert find_checkpoint("best", str(tmp_path), "other") == other.best
    assert find_checkpoint(str(wanted.folder), "x", None) == wanted.last
    assert find_checkpoint(str(other.best), "x", None) == other.best
    assert run_of(other.best) == Run(other.folder)


def test_where_there_is_none_the_way_to_one_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no run with a checkpoint yet\. Train one first: python cli.py fit"):
        newest_run(str(tmp_path))
    make(tmp_path, "demo", "2026-01-01_00-00-00", "last.ckpt")
    with pytest.raises(UserError, match=r"Did you mean run.name demo\?"):
        newest_run(str(tmp_path), "demmo")
    with pytest.raises(UserError, match="is not a checkpoint, nor a run with a checkpoint"):
        find_checkpoint("nowhere.ckpt", str(tmp_path), None)


def test_a_root_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"run\.root"):
        new_run(RunSettings("demo", str(tmp_path / "file")))
    with pytest.raises(UserError, match=r"run\.root"):
        new_run(RunSettings("demo", str(tmp_path / "file" / "deeper")))


def test_a_continued_run_keeps_its_first_config_and_reads_its_newest(tmp_path: Path) -> None:
    run = make(tmp_path, "demo", "2026-01-01_00-00-00")
    os.utime(run.folder / "config.yaml", (1, 1))
    assert Run(tmp_path).suffix() == ""
    assert run.suffix().startswith("-20")
    second = run.folder / f"config{run.suffix()}.yaml"
    second.touch()
    assert run.config() == second


def test_the_summary_grows_and_keeps_what_it_had(tmp_path: Path) -> None:
    run = make(tmp_path, "demo", "2026-01-01_00-00-00")
    run.update_summary(before={"loss": 2.0})
    run.update_summary(after={"loss": 1.0})
    assert run.read_summary() == {"before": {"loss": 2.0}, "after": {"loss": 1.0}}
    assert not list(run.folder.glob("*.tmp"))
