"""The folder of an export appears as a whole or not at all."""

import errno
import os
from pathlib import Path

import pytest
from safetensors import SafetensorError

from errors import UserError
from lightning_modules.export.folder import export_folder

HIDDEN = "Error while serializing: I/O error: {} (os error {})"  # as safetensors hides an error of the disk
FAULTS = [
    (OSError(errno.ENOSPC, "No space left on device"), "cannot be written: the disk is full"),
    (SafetensorError(HIDDEN.format("No space left on device", errno.ENOSPC)), "cannot be written: the disk is full"),
    (SafetensorError(HIDDEN.format("Disk quota exceeded", errno.EDQUOT)), "cannot be written: the disk is full"),
    (SafetensorError(HIDDEN.format("Read-only file system", errno.EROFS)), "is on a read-only disk"),
    (SafetensorError("anything else"), "the disk reports an error"),
]


def write(folder: Path, then: BaseException | None = None) -> None:
    """Write a folder, which ends with an error."""
    with export_folder(folder) as scratch:
        (scratch / "config.json").write_text("{}")
        if then is not None:
            raise then
        folder.mkdir()
        (folder / "mine").write_text("mine")


@pytest.mark.parametrize(("error", "words"), FAULTS, ids=lambda value: str(value)[:40])
def test_an_error_of_the_disk_is_one_line_and_leaves_nothing(error: Exception, words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"--to: .*out' .*{words}"):
        write(tmp_path / "out", error)
    assert not list(tmp_path.iterdir())


def test_any_other_error_leaves_nothing_either(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "out", KeyboardInterrupt())
    assert not list(tmp_path.iterdir())


def test_a_folder_that_was_filled_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--to: .*exists and is not empty"):
        write(tmp_path / "out")
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "mine"]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_files_are_as_readable_as_the_umask_says(umask: int, mode: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        with export_folder(tmp_path / "out") as scratch:
            (scratch / "model.safetensors").touch(0o600)
            (scratch / "inner").mkdir(0o700)
    finally:
        os.umask(before)
    assert (tmp_path / "out" / "model.safetensors").stat().st_mode & 0o777 == mode
    assert (tmp_path / "out" / "inner").stat().st_mode & 0o777 == 0o777 & ~umask
