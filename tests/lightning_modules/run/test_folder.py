import os
import re
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


def test_the_home_of_an_unknown_user_is_named() -> None:
    with pytest.raises(UserError, match=r"^run\.root: "):
        new_run(RunSettings("demo", "~no-such-user-here/runs"))


@pytest.mark.parametrize("name", ["exp[1]", "qwen/lr1", "a/b/c", "a*b"])
def test_runs_of_any_name_are_found_alone_and_among_all(tmp_path: Path, name: str) -> None:
    wanted = make(tmp_path, name, "2026-01-02_00-00-00", "last.ckpt")
    make(tmp_path, "exp1", "2026-01-01_00-00-00", "last.ckpt")
    assert newest_run(str(tmp_path), name).folder == wanted.folder
    assert newest_run(str(tmp_path)).folder == wanted.folder
    with pytest.raises(UserError, match=rf"Did you mean run.name {re.escape(name)}\?"):
        newest_run(str(tmp_path), f"{name}x")


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\x00", b'{"a": NaN', b"[" * 100_000])
def test_a_damaged_summary_is_set_aside_and_said(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    run = make(tmp_path, "demo", "2026-01-01_00-00-00")
    run.summary.write_bytes(content)
    run.update_summary(a=1)
    assert run.read_summary() == {"a": 1}
    (aside,) = run.folder.glob("summary-damaged-*.json")
    assert aside.read_bytes() == content
    assert "summary.json is damaged" in caplog.text


def test_a_run_without_its_config_is_named(tmp_path: Path) -> None:
    run = make(tmp_path, "demo", "2026-01-01_00-00-00", "last.ckpt")
    (run.folder / "config.yaml").unlink()
    for name in ("demo", None):
        with pytest.raises(UserError, match=r"2026-01-01_00-00-00' has checkpoints and no config\.yaml"):
            newest_run(str(tmp_path), name)


def test_the_option_that_gave_the_root_is_named(tmp_path: Path) -> None:
    for setting, name in (("run.root", None), ("--root", None), ("run.name", "demo")):
        with pytest.raises(UserError, match=rf"^{setting}: "):
            newest_run(str(tmp_path), name, setting if name is None else "run.root")


@pytest.mark.parametrize("length", [300, 5_000])
def test_a_checkpoint_with_an_over_long_name_is_named(length: int, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^--ckpt_path: .*cannot be opened \(File name too long\)"):
        find_checkpoint("x" * length, str(tmp_path), None)


@pytest.mark.parametrize("content", ['{"after": 5}', '{"before": null}', '{"after": {"loss": "x"}}', '"a"', "[1]"])
def test_a_summary_without_figures_is_damaged(content: str, tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.summary.write_text(content)
    assert run.read_summary() == {}
    assert len(list(tmp_path.glob("summary-damaged-*.json"))) == 1


@pytest.mark.parametrize("name", ["/dev/null/x", "/", "..", "a*[b"])
def test_a_name_that_is_an_absolute_path_or_a_pattern_holds_no_run(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no run with a checkpoint yet"):
        newest_run(str(tmp_path / "runs"), name)
