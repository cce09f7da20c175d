"""Counts the changes that a process makes to the files below a folder, and acts at one of them: kills or fails.

It sees what Python does: opening for writing, write, fsync, rename, link, delete, new folders. Files that C++ or Rust
write (Arrow, safetensors) are seen when Python touches them. Their single bytes are met by `limit_file_size`.
"""

import builtins
import errno
import io
import os
import re
import resource
import signal
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

VARYING = re.compile(r"(?<=\.export-)\w{8}|(?<=\.adapter-)\w{8}|[0-9a-f]{16}|\d+")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
# Event of sys.audit -> (operation, position of the changed path, position of its folder's descriptor)
AUDITED = {
    "os.rename": ("rename", 1, 3), "os.link": ("link", 1, 3), "os.symlink": ("link", 1, 2),
    "os.remove": ("delete", 0, 1), "os.rmdir": ("delete", 0, 1), "os.mkdir": ("new folder", 0, 2),
    "os.truncate": ("write", 0, 9),
}  # fmt: skip
FAILING = {  # the operations that fail on a disk in this state
    errno.ENOSPC: ("open", "write", "flush", "link", "new folder"),
    errno.EROFS: ("open", "write", "rename", "link", "delete", "new folder"),
    errno.EACCES: ("open", "rename", "link", "delete", "new folder"),
}


@dataclass(frozen=True)
class Operation:
    """One change of a file: the `nth` of its kind on files of this name."""

    what: str
    name: str  # below the folder; what varies between two runs is #
    nth: int

    def __str__(self) -> str:
        return f"{self.what} {self.nth} of {self.name}"


class FileOperations:
    """Calls `act` before each change of a file below `folder`, in this process from `install` on."""

    def __init__(self, folder: Path, act: Callable[[Operation], None]) -> None:
        self.folder, self.act = folder.resolve(), act
        self.counts: Counter[tuple[str, str]] = Counter()

    def install(self) -> None:
        """Watch this process until its end: an audit hook cannot be removed."""
        sys.addaudithook(self._audit)
        operations, opened = self, io.open

        class Watched(io.FileIO):
            def write(self, data: Any) -> int:
                operations._happens("write", self.fileno())
                return super().write(data) or 0

        def watched_open(
            file: Any, mode: str = "r", buffering: int = -1, encoding: str | None = None, errors: str | None = None,
            newline: str | None = None, closefd: bool = True, opener: Any = None,
        ) -> Any:  # fmt: skip
            if not set(mode) & set("wxa+") or operations.name(file) is None:
                return opened(file, mode, buffering, encoding, errors, newline, closefd, opener)
            raw = Watched(file, mode.replace("b", "").replace("t", ""), closefd, opener)
            if buffering == 0:
                return raw
            buffered: Any = (io.BufferedRandom if "+" in mode else io.BufferedWriter)(raw)
            return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding, errors, newline, buffering == 1)

        def watched(function: Callable[..., Any], what: str) -> Callable[..., Any]:
            def called(descriptor: Any, *args: Any, **kwargs: Any) -> Any:
                operations._happens(what, descriptor)
                return function(descriptor, *args, **kwargs)

            return called

        io.open = builtins.open = watched_open
        for name, what in (("write", "write"), ("fsync", "flush"), ("sendfile", "write"), ("ftruncate", "write")):
            setattr(os, name, watched(getattr(os, name), what))

    def _audit(self, event: str, args: tuple[Any, ...]) -> None:
        if event == "open":
            if args[0] is not None and args[2] & WRITING and not isinstance(args[0], int):
                self._happens("open", args[0])
        elif event in AUDITED:
            what, path, parent = AUDITED[event]
            self._happens(what, args[path], args[parent] if parent < len(args) else -1)

    def _happens(self, what: str, file: Any, parent: int = -1) -> None:
        if (name := self.name(file, parent)) is not None:
            self.counts[what, name] += 1
            self.act(Operation(what, name, self.counts[what, name]))

    def name(self, file: Any, parent: int = -1) -> str | None:
        """The name of a path or an open file below the folder; None for others."""
        try:
            if isinstance(file, int):
                path = os.readlink(f"/proc/self/fd/{file}")
            else:
                base = os.readlink(f"/proc/self/fd/{parent}") if parent >= 0 else os.getcwd()
                path = os.path.normpath(os.path.join(base, os.fsdecode(file)))
            return VARYING.sub("#", str(Path(path).relative_to(self.folder)))
        except (OSError, TypeError, ValueError):
            return None


def kill_at(folder: Path, when: Operation) -> Callable[[], None]:
    """Return what kills a process with SIGKILL just before an operation; call it in that process."""

    def act(operation: Operation) -> None:
        if operation == when:
            os.kill(os.getpid(), signal.SIGKILL)

    return FileOperations(folder, act).install


def fail_from(folder: Path, when: Operation, code: int) -> Callable[[], None]:
    """Return what makes a disk full (ENOSPC), read-only (EROFS) or forbidden (EACCES) from an operation on, for the
    process that calls it."""
    broken = False

    def act(operation: Operation) -> None:
        nonlocal broken
        broken = broken or operation == when
        if broken and operation.what in FAILING[code]:
            raise OSError(code, os.strerror(code), operation.name)

    return FileOperations(folder, act).install


def note_in(folder: Path, file: Path) -> Callable[[], None]:
    """Return what writes each operation below `folder` as a line of `file`, which is elsewhere."""

    def install() -> None:
        note, write = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND), os.write

        def act(operation: Operation) -> None:
            write(note, ("\t".join(map(str, astuple(operation))) + "\n").encode())

        FileOperations(folder, act).install()

    return install


def noted_in(file: Path) -> list[Operation]:
    """Return the operations that `note_in` wrote, in their order."""
    lines = (line.split("\t") for line in file.read_text().splitlines())
    return [Operation(what, name, int(nth)) for what, name, nth in lines]


def limit_file_size(size: int, kill: bool) -> Callable[[], None]:
    """Return what ends every write beyond `size` bytes of a file, also in C++ and Rust: with a kill of the process
    (SIGXFSZ), or with the error EFBIG."""

    def install() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL if kill else signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        if kill:
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    return install
