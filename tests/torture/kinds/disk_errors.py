"""A disk that is full or read-only from some file operation of a command on, and files that reach the largest size.

The command ends with one line that names the setting at fault. What was there before is whole: without the error, the
next start of the command reaches the right result.
"""

import errno
import functools
from collections.abc import Callable, Iterator

from tests.torture.file_operations import FAILING, Operation, fail_from, limit_file_size
from tests.torture.forked import run
from tests.torture.kinds.kills import AT_EACH_SIZE, SIZES, recovers
from tests.torture.suite import DONE, REFUSED, Case, ends_well, error_line, numbered
from tests.torture.world import COMMANDS, World, arguments, difference

KIND = "disk errors"
AT_EACH_OPERATION = ("fit", "resume", "test", "predict", "evaluate", "export", "adapter", "gguf", "report", "preview")
ERRORS = {errno.ENOSPC: "full", errno.EROFS: "read-only", errno.EACCES: "not permitted"}
SETTINGS = ("run.root", "data.cache_dir", "--to", "--jsonl", "--html", "--ckpt_path")


def cases(world: World) -> list[Case]:
    return numbered(KIND, _checks(world))


def _checks(world: World) -> Iterator[tuple[str, Callable[[], None]]]:
    for name in AT_EACH_OPERATION:
        for k, when in enumerate(world.operations(name)):
            for code, words in ERRORS.items():
                if when.what in FAILING[code] and (code != errno.EACCES or k % 4 == 0):  # handled as read-only is
                    yield f"{name}, disk {words} from {when}", functools.partial(_at_operation, world, name, when, code)
    for name in AT_EACH_SIZE:
        for size in SIZES:
            yield f"{name}, no file above {size} bytes", functools.partial(_at_size, world, name, size)


def _at_operation(world: World, name: str, when: Operation, code: int) -> None:
    _fails(world, name, lambda folder: fail_from(folder, when, code))


def _at_size(world: World, name: str, size: int) -> None:
    _fails(world, name, lambda folder: limit_file_size(size, kill=False))


def _fails(world: World, name: str, fault: Callable[..., Callable[[], None]]) -> None:
    one = COMMANDS[name]
    with world.copy(one.start) as folder:
        ended = run(arguments(one, folder), folder, fault(folder))
        ends_well(ended, DONE, REFUSED)
        if ended.code == REFUSED:
            line = error_line(ended)
            assert line.startswith(tuple(f"error: {setting}: " for setting in SETTINGS)), f"no setting named: {line}"
            assert "[Errno" not in line, f"an error of the system in the words of Python: {line}"
            if name != "test":
                recovers(world, name, folder)
        else:
            differs = difference(one.result(folder, ended), world.right(name))
            assert not differs, f"code 0, another result: {differs}"
