"""Two processes at once, files that vanish under a command, and Ctrl-C and SIGTERM at any moment."""

import functools
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.torture.forked import Child, Ended, command, run
from tests.torture.kinds.kills import next_start, recovers
from tests.torture.suite import DONE, REFUSED, Case, ends_well, error_line, numbered
from tests.torture.world import COMMANDS, FIT, RESUME, World, arguments, result_of_run

KIND = "races"
TIMES = 12  # of each race
LONG = (*FIT, "--checkpoint.every_n_train_steps", "1")


def cases(world: World) -> list[Case]:
    return numbered(KIND, _checks(world))


def _checks(world: World) -> Iterator[tuple[str, Callable[[], None]]]:
    for words, race in RACES.items():
        for seed in range(TIMES):
            yield f"{words}, {seed}", functools.partial(race, world, random.Random(f"{words} {seed}"))


def _together(folder: Path, args: tuple[str, ...], pause: float) -> list[Ended]:
    """Start a command twice, the second one `pause` seconds later."""
    first = Child(command(args), folder)
    time.sleep(pause)
    second = Child(command(args), folder)
    return [first.end(), second.end()]


def two_resumes(world: World, rng: random.Random) -> None:
    """One of them trains; the other is refused with the first one's process id, or comes later and finds it done."""
    with world.copy("stopped") as folder:
        ends = _together(folder, RESUME, rng.uniform(0, world.seconds))
        for ended in ends:
            ends_well(ended, DONE, REFUSED)
            assert ended.code == DONE or "process" in error_line(ended), f"other reason: {error_line(ended)}"
        assert DONE in [ended.code for ended in ends], "none of them trained"
        recovers(world, "resume", folder)


def two_preparations(world: World, rng: random.Random) -> None:
    """Both use the same prepared rows, and each has a run of its own."""
    with world.copy("fresh") as folder:
        for ended in _together(folder, FIT, rng.choice((0.0, rng.uniform(0, 0.4)))):
            ends_well(ended, DONE)
        runs = list(folder.glob("runs/*/*/"))
        assert len(runs) == 2, f"{len(runs)} run folders"
        assert all(result_of_run(one) == world.right("fit") for one in runs), "another result"
        prepared = [one for one in folder.glob("cache/*/") if one.name != "measured"]  # beside what was measured
        assert len(prepared) == 1, "prepared twice"
        assert not world.leftovers(folder), world.leftovers(folder)


def reader_and_writer(world: World, rng: random.Random) -> None:
    """Whoever reads a run while it is trained gets a whole checkpoint."""
    with world.copy("trained") as folder:
        writer = Child(command(LONG), folder)
        time.sleep(rng.uniform(0, 0.3))
        while writer.lives():
            ended = run(arguments(COMMANDS[rng.choice(("generate", "validate", "adapter"))], folder), folder)
            ends_well(ended, DONE)
            shutil.rmtree(folder / "out", ignore_errors=True)
        ends_well(writer.end(), DONE)


def two_exports(world: World, rng: random.Random) -> None:
    with world.copy("trained") as folder:
        ends = _together(folder, COMMANDS["export"].args, rng.choice((0.0, rng.uniform(0, 0.3))))
        for ended in ends:
            ends_well(ended, DONE, REFUSED)
        assert DONE in [ended.code for ended in ends], error_line(ends[0])
        recovers(world, "export", folder)


def run_deleted(world: World, rng: random.Random) -> None:
    _deleted(world, rng, "runs/*/*")


def prepared_deleted(world: World, rng: random.Random) -> None:
    _deleted(world, rng, "cache/*")


def _deleted(world: World, rng: random.Random, place: str) -> None:
    """A folder vanishes under a fit, which ends with one line or does not need it; the next fit is right."""
    with world.copy("fresh") as folder:
        child = Child(command(FIT), folder)
        child.lives(rng.uniform(0.1, world.seconds))
        for found in folder.glob(place):
            shutil.rmtree(found, ignore_errors=True)
        ends_well(child.end(), DONE, REFUSED)
        shutil.rmtree(folder / "runs", ignore_errors=True)
        recovers(world, "fit", folder)


def one_signal(world: World, rng: random.Random) -> None:
    _signalled(world, rng, 1)


def two_signals(world: World, rng: random.Random) -> None:
    _signalled(world, rng, 2)


def _signalled(world: World, rng: random.Random, times: int) -> None:
    """A fit that a signal ends has the signal's code, and resumes to the bit."""
    with world.copy("fresh") as folder:
        signum = rng.choice((signal.SIGINT, signal.SIGTERM))
        child = Child(command(next_start(folder)), folder)
        child.lives(rng.uniform(0.15, world.seconds))
        for _ in range(times):
            child.send(signum)
            child.lives(rng.uniform(0, 0.1))
        ended = child.end()
        if ended.code != -signum:  # the program had not begun to handle it
            ends_well(ended, DONE, 128 + signum)
        recovers(world, "fit", folder)


RACES: dict[str, Callable[[World, random.Random], None]] = {
    "two fits resume one run": two_resumes,
    "two fits prepare the same rows": two_preparations,
    "commands read a run while it is trained": reader_and_writer,
    "two exports to one folder": two_exports,
    "the run folder is deleted under a fit": run_deleted,
    "the prepared rows are deleted under a fit": prepared_deleted,
    "a signal": one_signal,
    "two signals": two_signals,
}
