"""Files on a disk: digests that are remembered, writes that a kill cannot cut in half, and disk errors in one line.

The name of a temporary file or folder begins with TEMPORARY. Its writer holds a lock on it (flock) while it lives, so a
temporary file without a lock is that of a dead writer. The next writer in the same folder deletes it.
"""

import errno
import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, TypeGuard

from errors import UserError
from visible import SURROGATES

TEMPORARY = ".writing-"  # the start of a temporary name
LONGEST_NAME = 255  # bytes; the limit of ext4, XFS, btrfs, NFS and APFS
SMALL = 2**20  # bytes; the digest of a smaller file is computed each time, in less than a millisecond
SETTLED = 2.0  # seconds; a file that changed later may change again within the resolution of its times
REMEMBERED = 10_000  # files; 2 MB
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
REASONS = {
    errno.EROFS: ("is on a read-only disk", "give a folder that can be written"),
    errno.ENOENT: ("does not exist any more, or cannot be made", "give a folder that stays while it runs"),
    errno.ENOTDIR: ("goes through a file as if it were a folder", "give another path"),
    errno.EISDIR: ("is a folder, not a file", "give the path of a file"),
    errno.ENAMETOOLONG: ("has a name that is too long for the disk", "give a shorter name"),
    errno.EIO: ("cannot be read or written (the disk reports an error)", "check the disk"),
}


def cache_home() -> Path:
    """Return the folder of this program's caches: `$XDG_CACHE_HOME/thinkwright`, or `~/.cache/thinkwright`."""
    home = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG standard ignores a relative path
    return (Path(home) if os.path.isabs(home) else Path("~/.cache").expanduser()) / "thinkwright"


def is_file_name(name: object) -> TypeGuard[str]:
    """Whether a value, for example one read from a file, is the name of a file in a folder: a text without a path."""
    if not isinstance(name, str) or name in ("", ".", "..") or {"/", "\\", "\0"} & {*name}:
        return False
    return len(name.encode("utf-8", "surrogatepass")) <= LONGEST_NAME and not SURROGATES.search(name)


# Digests


def digest(path: Path) -> str:
    """Return the xxh3-128 of all bytes of a file (32 hexadecimal digits), computed at about 10 GB/s.

    It finds damage and change, not malice. The digest of a file of SMALL bytes or more is remembered, with size, times
    and inode, and is not computed again until one of them changes. Raises OSError.
    """
    return digests([path])[0]


def digests(paths: Sequence[Path]) -> list[str]:
    """Return the digest of each file, as `digest`; the memory is read and written once for all of them."""
    from xxhash import xxh3_128  # not above: a wrong command says what to install without any package

    memory, found, new = _remembered(), [], {}
    for path in paths:
        with path.open("rb") as file:
            before, key = _state(file), str(path.resolve())
            known = memory.get(key)
            if known is None or known[:-1] != before:
                known = [*before, hashlib.file_digest(file, xxh3_128).hexdigest()]
                settled = _state(file) == before and max(before[1:3]) < (time.time() - SETTLED) * 1e9
                if before[0] >= SMALL and settled:
                    new[key] = known
            found.append(str(known[-1]))
    if new:
        _remember(new)
    return found


def _state(file: BinaryIO) -> list[int]:
    """Return size, time of content and time of attributes in nanoseconds, inode and device."""
    stat = os.fstat(file.fileno())
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino, stat.st_dev]


def _memory() -> Path:
    return cache_home() / "digests.json"


def _remembered() -> dict[str, list[int | str]]:
    """Return the remembered digests by path; nothing if the memory is missing or damaged."""
    from xxhash import xxh3_128_hexdigest

    try:
        sum_of_rest, rest = _memory().read_bytes().split(b"\n", 1)
        if xxh3_128_hexdigest(rest).encode() != sum_of_rest:
            return {}
        known: dict[str, list[int | str]] = json.loads(rest)
    except (OSError, ValueError):
        return {}
    return known


def _remember(new: dict[str, list[int | str]]) -> None:
    from xxhash import xxh3_128_hexdigest

    known = {key: entry for key, entry in _remembered().items() if key not in new} | new  # the newest are the last
    rest = json.dumps(dict(list(known.items())[-REMEMBERED:])).encode()
    with suppress(OSError):  # a cache that cannot be written costs time, nothing else
        write_file(_memory(), xxh3_128_hexdigest(rest).encode() + b"\n" + rest)


# Writing


@contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file beside `path`. At the end flush it to the disk and rename it to `path`.

    A reader sees the old or the new file whole, also after a kill or a power failure. After an error the temporary file
    is deleted. The parent folder is made. Raises OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path.parent)
    scratch, file = _new_file(path)
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            os.replace(scratch, path)  # under the lock: no other process takes the file for a leftover
    except BaseException:
        with suppress(OSError):
            scratch.unlink()
        raise
    flush(path.parent)


def write_file(path: Path, data: str | bytes) -> None:
    """Write a whole file, text as UTF-8, as `writing` does."""
    with writing(path) as file:
        file.write(data.encode() if isinstance(data, str) else data)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Make an empty temporary folder beside `path`. At the end flush all its files and rename it to `path`.

    After an error the temporary folder is deleted. Raises FileExistsError if `path` is a file or a folder with files,
    and OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path.parent)
    scratch = _temporary(path)
    scratch.mkdir()
    lock = _lock(scratch)
    try:
        yield scratch
        for folder, _, files in os.walk(scratch):
            for name in files:
                flush(Path(folder, name))
            flush(Path(folder))
        if path.exists() and not path.is_dir():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        try:
            os.rename(scratch, path)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from error
            raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        if lock is not None:
            os.close(lock)
    flush(path.parent)


def remove_leftovers(folder: Path) -> None:
    """Delete the temporary files and folders of dead writers in a folder, if it can be written."""
    try:
        found = [Path(entry.path) for entry in os.scandir(folder) if entry.name.startswith(TEMPORARY)]
    except OSError:
        return
    for path in found:
        lock = _lock(path)
        if lock is None:
            continue
        try:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                with suppress(OSError):
                    path.unlink()
        finally:
            os.close(lock)


@contextmanager
def locked(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold the lock of a path, which need not exist. One process at a time holds it, and a killed one loses it.

    `waiting` is called if another process holds it. On a disk without locks nobody waits. The lock is a temporary file
    beside `path`. Raises OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    name = path.with_name(f"{TEMPORARY}{path.name}.lock")
    descriptor = _wait_for_lock(name, waiting)
    try:
        yield
    finally:
        with suppress(OSError):
            name.unlink()
        os.close(descriptor)


def _wait_for_lock(name: Path, waiting: Callable[[], None]) -> int:
    """Return the descriptor of a lock file with the lock."""
    while True:
        descriptor = os.open(name, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError:  # a disk without locks
            return descriptor
        with suppress(FileNotFoundError):
            if os.stat(name).st_ino == os.fstat(descriptor).st_ino:
                return descriptor
        os.close(descriptor)  # its last holder has deleted the file, and another one may have its name


def flush(path: Path) -> None:
    """Flush a file to the disk, or the entries of a folder: without it a power failure can undo a rename."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _new_file(path: Path) -> tuple[Path, BinaryIO]:
    """Return the name of a new temporary file for `path`, and the file, open and locked."""
    while True:
        scratch = _temporary(path)
        file = scratch.open("xb")
        with suppress(OSError):  # a disk without locks
            fcntl.flock(file, fcntl.LOCK_EX)
        try:
            if os.stat(scratch).st_ino == os.fstat(file.fileno()).st_ino:
                return scratch, file
        except FileNotFoundError:  # another process took it for a leftover before it was locked
            pass
        file.close()


def _temporary(path: Path) -> Path:
    """Return a temporary name beside `path`, with as much of its name as fits."""
    start = f"{TEMPORARY}{os.getpid()}-{time.monotonic_ns()}-".encode()
    return path.with_name(os.fsdecode(start + os.fsencode(path.name)[: LONGEST_NAME - len(start)]))


def _lock(path: Path) -> int | None:
    """Lock a file or folder and return its descriptor; None if another process holds it, or the disk has no locks."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


# Errors


def disk_error(setting: str, path: Path | str, error: OSError) -> UserError:
    """Return the one line for an error of the disk: the setting at fault, the path, the reason and the way out."""
    if error.errno in FULL:
        reason = ("cannot be written: the disk is full", "free some space, or give a folder on another disk")
    else:
        otherwise = (f"cannot be written ({error.strerror or error})", "give a path that can be written")
        reason = REASONS.get(error.errno or 0, otherwise)
    return UserError(setting, path, *reason)


@contextmanager
def disk_errors(setting: str, path: Path | str) -> Iterator[None]:
    """Turn an OSError into the UserError of `disk_error`."""
    try:
        yield
    except OSError as error:
        raise disk_error(setting, path, error) from error
