"""2,000 optimizer steps, seen from outside: memory, open files, threads and time of a step do not grow."""

import csv
import functools
import itertools
import os
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.torture.forked import Child, command
from tests.torture.suite import DONE, Case, ends_well
from tests.torture.world import FIT, World

KIND = "long run"
STEPS = 2_000
SETTLED = 400  # steps after which every buffer has its size
GROWTH = 1.03  # of memory, between the first and the last half of the settled steps
SLOWER = 1.5  # of a step's time; other programs on the machine disturb it
LONG = (
    *FIT, "--data.source", "builtin", "--data.train_rows", "4000", "--trainer.accumulate_grad_batches", "1",
    "--trainer.max_epochs", "1", "--trainer.max_steps", str(STEPS), "--checkpoint.every_n_train_steps", "100",
    "--trainer.log_every_n_steps", "10", "--trainer.val_check_interval", "500",
)  # fmt: skip
VARIANTS = {
    "plain": (),
    "threads, packed": ("--data.num_workers", "2", "--data.packing", "packed", "--data.max_length", "128"),
}


@dataclass(frozen=True)
class Sample:
    step: int
    at: float  # seconds
    memory: int  # KiB that belong to the process alone
    files: int
    threads: int


def cases(world: World) -> list[Case]:
    return [
        Case(KIND, seed, f"{STEPS:,} steps, {words}", functools.partial(_check, world, more), first=True)
        for seed, (words, more) in enumerate(VARIANTS.items())
    ]


def _check(world: World, more: tuple[str, ...]) -> None:
    with world.copy("fresh") as folder:
        child = Child(command((*LONG, *more)), folder)
        samples = list(_watch(child, folder))
        ends_well(child.end(), DONE)
    settled = [one for one in samples if one.step >= SETTLED]
    assert settled and settled[-1].step > 0.9 * STEPS, f"{len(samples)} samples, the last at step {samples[-1].step}"
    middle = (SETTLED + STEPS) // 2
    halves = [[s for s in settled if s.step < middle], [s for s in settled if s.step >= middle]]
    for name, allowed in (("memory", GROWTH), ("files", 1.0), ("threads", 1.0)):
        before, after = (statistics.median(getattr(one, name) for one in half) for half in halves)
        assert after <= allowed * before, f"{name}: {before:,.0f} in steps {SETTLED} to {middle}, then {after:,.0f}"
    early, late = (statistics.median(_seconds_per_step(half)) for half in halves)
    assert late <= SLOWER * early, f"a step took {1000 * early:.1f} ms, and then {1000 * late:.1f} ms"


def _watch(child: Child, folder: Path) -> Iterator[Sample]:
    while child.lives(0.1):
        log = next(folder.glob("runs/*/*/metrics.csv"), None)
        try:
            status = dict(line.split(":", 1) for line in Path(f"/proc/{child.pid}/status").read_text().splitlines())
            files = len(os.listdir(f"/proc/{child.pid}/fd"))
        except OSError:
            return
        if log is not None and "RssAnon" in status:
            memory, threads = int(status["RssAnon"].split()[0]), int(status["Threads"])
            yield Sample(_newest_step(log), time.monotonic(), memory, files, threads)


def _newest_step(log: Path) -> int:
    with log.open() as file:
        return max((int(row["step"] or 0) for row in csv.DictReader(file)), default=0)


def _seconds_per_step(half: list[Sample]) -> list[float]:
    by_step = {one.step: one.at for one in reversed(half)}
    return [(by_step[b] - by_step[a]) / (b - a) for a, b in itertools.pairwise(sorted(by_step))]
