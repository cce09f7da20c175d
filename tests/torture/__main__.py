"""python -m tests.torture: try all promises, print a table of what was tried, held and failed; exit 1 for a failure."""

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from errors import UserError
from tests.torture import table
from tests.torture.forked import import_everything
from tests.torture.kinds import KINDS
from tests.torture.suite import Case, Outcome, run_cases
from tests.torture.world import World


def main(args: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__, allow_abbrev=False)
    parser.add_argument("--kind", action="append", choices=list(KINDS), help="this kind only; may be repeated")
    parser.add_argument("--seed", type=int, help="this case of a kind only")
    parser.add_argument("--quick", action="store_true", help="a few cases of each kind, a minute in all")
    parser.add_argument("--minutes", type=float, default=60.0, help="start no case after this time")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="cases at once")
    parser.add_argument("--list", action="store_true", help="print the cases and run none")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the table to a page, between its two markers")
    given = parser.parse_args(args)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the folder is deleted
    import_everything()
    root = Path(tempfile.mkdtemp(prefix="torture-"))
    started = time.monotonic()
    try:
        world = World(root)
        cases = choose(world, given.kind or list(KINDS), given.seed, given.quick)
        if given.list:
            for case in cases:
                print(f"{case.kind} {case.seed}: {case.words}")
            return 0
        jobs = 1 if given.quick or len(cases) == 1 else given.jobs
        if jobs > 1:
            world.complete()
        outcomes = run_all(cases, jobs, given.minutes)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    print(table.text(cases, outcomes, time.monotonic() - started))
    if given.write is not None:
        try:
            table.write(given.write, cases, outcomes, time.monotonic() - started)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
    return int(any(outcome.failures for outcome in outcomes))


def choose(world: World, kinds: Sequence[str], seed: int | None, quick: bool) -> list[Case]:
    """The cases to run."""
    chosen: list[Case] = []
    for kind in tqdm(kinds, desc="counting cases", disable=None, leave=False):
        cases = KINDS[kind].cases(world)
        if seed is not None:
            cases = [case for case in cases if case.seed == seed]
        elif quick:
            cases = KINDS[kind].quick(cases)
        chosen += cases
    return chosen


def run_all(cases: Sequence[Case], jobs: int, minutes: float) -> list[Outcome]:
    """Run the cases; print each failure as soon as it is seen."""
    outcomes: list[Outcome] = []
    with tqdm(total=len(cases), desc="torture", unit=" cases", disable=None, smoothing=0.05) as bar:
        for outcome in run_cases(cases, jobs, minutes):
            outcomes.append(outcome)
            bar.update()
            for failure in outcome.failures:
                tqdm.write(
                    f"FAILED --kind {outcome.case.kind} --seed {outcome.case.seed}: {outcome.case.words}: {failure}"
                )
    return outcomes


if __name__ == "__main__":
    sys.exit(main())
