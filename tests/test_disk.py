"""Digests, writes and leftovers of disk.py."""

import errno
import fcntl
import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import xxhash

import disk
from disk import (
    TEMPORARY,
    digest,
    disk_error,
    disk_errors,
    is_file_name,
    locked,
    new_folder,
    remove_leftovers,
    write_file,
    writing,
)
from errors import UserError
from tests.conftest import ROOT

OLD = time.time_ns() - 10**10


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file whose digest is remembered: large enough, and unchanged for long enough."""
    monkeypatch.setattr(disk, "SETTLED", -10.0)
    path = tmp_path / "large"
    path.write_bytes(os.urandom(2 * disk.SMALL))
    return path


def temporary(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(TEMPORARY)]


def test_a_digest_covers_all_bytes(large: Path) -> None:
    assert digest(large) == xxhash.xxh3_128_hexdigest(large.read_bytes())


def test_a_remembered_digest_is_not_computed_again(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = digest(large)
    monkeypatch.setattr(hashlib, "file_digest", lambda *_: pytest.fail("computed again"))
    assert digest(large) == first


@pytest.mark.parametrize("keep_times", [False, True])
def test_one_flipped_bit_changes_a_remembered_digest(large: Path, keep_times: bool) -> None:
    first, before = digest(large), large.stat()
    with large.open("r+b") as file:
        byte = file.read(1)
        file.seek(0)
        file.write(bytes([byte[0] ^ 1]))
    if keep_times:  # as a copy that restores the times: the time of the attributes cannot be restored
        os.utime(large, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert digest(large) != first


def test_a_file_in_another_files_place_has_its_own_digest(large: Path) -> None:
    other = large.with_name("other")
    other.write_bytes(os.urandom(large.stat().st_size))
    digest(large)
    os.utime(other, ns=(large.stat().st_atime_ns, large.stat().st_mtime_ns))
    os.replace(other, large)
    assert digest(large) == xxhash.xxh3_128_hexdigest(large.read_bytes())


def test_a_file_that_has_just_changed_is_not_remembered(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "SETTLED", 100.0)
    digest(large)
    assert not disk._remembered()


@pytest.mark.parametrize("position", [0, 40, -10])
def test_a_damaged_memory_is_ignored(large: Path, position: int) -> None:
    right = digest(large)
    memory = disk._memory()
    data = bytearray(memory.read_bytes())
    data[position] ^= 1
    memory.write_bytes(data)
    assert not disk._remembered()
    assert digest(large) == right


def test_the_memory_is_written_once_for_many_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "SETTLED", -10.0)
    paths = [tmp_path / str(n) for n in range(5)]
    for path in paths:
        path.write_bytes(os.urandom(disk.SMALL))
    written: list[Path] = []
    write = disk.write_file

    def counted(path: Path, data: str | bytes) -> None:
        written.append(path)
        write(path, data)

    monkeypatch.setattr(disk, "write_file", counted)
    assert disk.digests(paths) == [xxhash.xxh3_128_hexdigest(path.read_bytes()) for path in paths]
    assert len(written) == 1
    monkeypatch.setattr(hashlib, "file_digest", lambda *_: pytest.fail("computed again"))
    assert disk.digests(paths[::-1])[0] == digest(paths[4])
    assert len(written) == 1


def test_the_memory_has_a_largest_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "REMEMBERED", 3)
    for n in range(5):
        disk._remember({str(n): [n, "digest"]})
    assert list(disk._remembered()) == ["2", "3", "4"]


def test_a_cache_that_cannot_be_written_is_no_error(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(large))
    assert digest(large) == digest(large)


@pytest.mark.parametrize("home", ["", "relative"])
def test_the_cache_is_in_the_home_folder_by_default(home: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", home)
    assert disk.cache_home() == Path.home() / ".cache" / "thinkwright"


def test_an_error_leaves_the_old_file_and_no_temporary_one(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_file(path, "old")
    with pytest.raises(TypeError), writing(path) as file:
        file.write("no bytes")  # type: ignore[call-overload]
    assert path.read_text() == "old"
    assert not temporary(tmp_path)


def test_a_file_is_flushed_before_the_rename_and_its_folder_after_it(tmp_path: Path, disk_order: list[str]) -> None:
    write_file(tmp_path / "file", b"data")
    assert disk_order[0].startswith(TEMPORARY) and disk_order[0].endswith("-file")
    assert disk_order[1:] == ["rename", tmp_path.name]


def test_a_new_folder_is_flushed_with_all_files_before_the_rename(tmp_path: Path, disk_order: list[str]) -> None:
    with new_folder(tmp_path / "to") as scratch:
        (scratch / "inner").mkdir()
        (scratch / "inner" / "file").write_text("data")
    assert set(disk_order[:3]) == {"file", "inner", scratch.name}
    assert disk_order[3:] == ["rename", tmp_path.name]
    assert (tmp_path / "to" / "inner" / "file").read_text() == "data"


def test_a_new_folder_takes_no_place_that_is_taken(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    (tmp_path / "file").touch()
    for name in ("full", "file"):
        with pytest.raises(FileExistsError), new_folder(tmp_path / name) as scratch:
            (scratch / "new").touch()
    assert not temporary(tmp_path)
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["file"]


def test_a_name_of_the_longest_size_can_be_written(tmp_path: Path) -> None:
    for name in ("x" * 255, "é" * 127):
        write_file(tmp_path / name, "data")
        assert (tmp_path / name).read_text() == "data"


def test_the_next_writer_deletes_what_a_killed_one_left(tmp_path: Path) -> None:
    """A kill in the middle of a write and of a folder leaves temporary ones; the next write deletes both."""
    script = (
        "import os, signal, sys; from pathlib import Path; from disk import new_folder, writing\n"
        "with new_folder(Path('folder')) as scratch, writing(Path('file')) as file:\n"
        "    (scratch / 'part').touch()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert len(temporary(tmp_path)) == 2
    write_file(tmp_path / "other", "data")
    assert os.listdir(tmp_path) == ["other"]


def test_the_temporary_file_of_a_living_writer_stays(tmp_path: Path) -> None:
    with new_folder(tmp_path / "folder"), writing(tmp_path / "file") as file:
        remove_leftovers(tmp_path)
        write_file(tmp_path / "other", "data")
        assert len(temporary(tmp_path)) == 2
        file.write(b"data")
    assert not temporary(tmp_path)


def test_a_temporary_file_that_was_deleted_before_its_lock_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock, first = fcntl.flock, [True]

    def deleted_first(file: object, operation: int) -> None:
        if first:
            first.clear()
            for name in temporary(tmp_path):
                (tmp_path / name).unlink()
        flock(file, operation)  # type: ignore[arg-type]

    monkeypatch.setattr(fcntl, "flock", deleted_first)
    write_file(tmp_path / "file", "data")
    assert (tmp_path / "file").read_text() == "data"
    assert not first


def test_one_holder_of_a_lock_at_a_time_and_the_others_say_that_they_wait(tmp_path: Path) -> None:
    inside, most, waited = [0], [0], []

    def hold() -> None:
        for _ in range(20):
            with locked(tmp_path / "new", lambda: waited.append(1)):
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                time.sleep(0.0005)
                inside[0] -= 1

    threads = [threading.Thread(target=hold) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]
    assert waited
    assert not temporary(tmp_path)


def test_the_lock_of_a_killed_process_is_free_and_its_file_is_deleted(tmp_path: Path) -> None:
    script = (
        "import os, signal; from pathlib import Path; from disk import locked\n"
        "with locked(Path('mine'), print), locked(Path('other'), print):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, check=False)
    assert len(temporary(tmp_path)) == 2
    with locked(tmp_path / "mine", lambda: pytest.fail("waits for a dead process")):
        remove_leftovers(tmp_path)
        assert len(temporary(tmp_path)) == 1
    assert not temporary(tmp_path)


def test_an_error_under_a_lock_frees_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), locked(tmp_path / "mine", lambda: None):
        raise FileNotFoundError
    assert not temporary(tmp_path)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "the disk is full"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "Permission denied"),
        (errno.ENOENT, "does not exist any more"),
        (errno.ENAMETOOLONG, "too long"),
    ],
)
def test_a_disk_error_names_setting_path_and_reason(number: int, words: str) -> None:
    text = str(disk_error("run.root", "runs", OSError(number, os.strerror(number))))
    assert text.startswith("run.root: 'runs' ")
    assert words in text
    assert "\n" not in text


def test_a_disk_error_inside_a_block_becomes_a_users_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"run\.root"), disk_errors("run.root", tmp_path):
        write_file(tmp_path / "file" / "inner", "data")


@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("data-00000-of-00001.arrow", True), ("é" * 127, True), ("..a", True), ("é" * 128, False), ("", False),
        ("..", False), (".", False), ("a/b", False), ("/a", False), ("a\\b", False), ("a\0", False),
        ("\ud800", False), (None, False), (3, False), (["a"], False),
    ],
)  # fmt: skip
def test_a_name_from_a_file_is_taken_only_if_it_stays_in_its_folder(name: object, right: bool) -> None:
    assert is_file_name(name) == right
