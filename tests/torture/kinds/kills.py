"""Kills with SIGKILL: at every file operation of a command, inside the writes of C++ and Rust, and at random moments.

After each, the command is started again. It must end with the result of a command that nobody disturbed, to the bit.
"""

import functools
import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.torture.file_operations import Operation, kill_at, limit_file_size
from tests.torture.forked import Child, Ended, command, run
from tests.torture.suite import DONE, REFUSED, Case, ends_well, numbered
from tests.torture.world import COMMANDS, FIT, RESUME, World, arguments, difference

KIND = "kills"
AT_EACH_OPERATION = ("fit", "resume", "export", "adapter", "gguf", "report", "predict", "evaluate", "preview")
AT_EACH_SIZE = ("fit", "export", "adapter", "gguf")
SIZES = (8_192, 9_000, 12_288, 16_384, 20_000, 24_576, 32_768, 49_152, 65_536, 2**18, 2**20)  # bytes
RANDOM_MOMENTS = 100


def cases(world: World) -> list[Case]:
    return numbered(KIND, _checks(world))


def _checks(world: World) -> Iterator[tuple[str, Callable[[], None]]]:
    for name in AT_EACH_OPERATION:
        for when in world.operations(name):
            yield f"{name} killed before {when}", functools.partial(_at_operation, world, name, when)
    for name in AT_EACH_SIZE:
        for size in SIZES:
            yield f"{name} killed at byte {size} of a file", functools.partial(_at_size, world, name, size)
    for seed in range(RANDOM_MOMENTS):
        yield f"fit killed at a random moment, {seed}", functools.partial(_at_random, world, seed)


def _at_operation(world: World, name: str, when: Operation) -> None:
    with world.copy(COMMANDS[name].start) as folder:
        ended = run(arguments(COMMANDS[name], folder), folder, kill_at(folder, when))
        assert ended.code == -signal.SIGKILL, f"it was not killed, code {ended.code}: {ended.said[-500:]}"
        recovers(world, name, folder)


def _at_size(world: World, name: str, size: int) -> None:
    with world.copy(COMMANDS[name].start) as folder:
        run(arguments(COMMANDS[name], folder), folder, limit_file_size(size, kill=True))
        recovers(world, name, folder)


def _at_random(world: World, seed: int) -> None:
    rng = random.Random(seed)
    with world.copy("fresh") as folder:
        for _ in range(rng.choice((1, 1, 2, 3))):
            child = Child(command(next_start(folder)), folder)
            child.lives(rng.uniform(0.0, 1.2 * world.seconds))
            child.send(signal.SIGKILL)
            child.end()
        recovers(world, "fit", folder)


def next_start(folder: Path) -> tuple[str, ...]:
    """The arguments with which a user continues a fit: from the last checkpoint, if the run has one."""
    return RESUME if any(folder.glob("runs/*/*/checkpoints/last.ckpt")) else FIT


def recovers(world: World, name: str, folder: Path) -> None:
    """Assert that a command that was killed in `folder` reaches the right result at its next start, and that nothing of
    the dead process stays."""
    one = COMMANDS[name]
    if name in ("fit", "resume"):
        ended = run(next_start(folder), folder)
        ends_well(ended, DONE)
    else:
        before = one.result(folder, Ended(0, "", "", 0.0))
        assert not before or before == world.right(name), f"a part of the result was there: {sorted(before)}"
        ended = run(arguments(one, folder), folder)
        ends_well(ended, DONE, *((REFUSED,) if before else ()))
    differs = difference(one.result(folder, ended), world.right(name))
    assert not differs, f"another result than that of an undisturbed command: {differs}"
    left = world.leftovers(folder)
    assert not left, f"left by the dead process: {left}"
