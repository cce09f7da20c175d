"""A case of torture, what must hold at the end of every command, and the loop over the cases."""

import multiprocessing
import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass

from tests.torture.forked import ROOT, Ended

DONE, REFUSED = 0, 2
CODES = (DONE, REFUSED, 130, 143)  # cli.main


@dataclass(frozen=True)
class Case:
    """One trial. `check` returns what failed, or raises AssertionError or TimeoutError."""

    kind: str
    seed: int  # its place among the cases of its kind
    words: str
    check: Callable[[], Iterable[str] | None]
    tried: int = 1  # trials in this case
    first: bool = False  # it takes long, so it starts before the others


@dataclass(frozen=True)
class Outcome:
    case: Case
    failures: list[str]
    seconds: float


def numbered(kind: str, checks: Iterable[tuple[str, Callable[[], None]]]) -> list[Case]:
    """The cases of a kind, of their words and checks in a fixed order."""
    return [Case(kind, seed, words, check) for seed, (words, check) in enumerate(checks)]


def ends_well(ended: Ended, *codes: int) -> None:
    """Raise AssertionError unless a command ended with a documented code, without a traceback, and with one line for an
    error. `codes` are the ones that fit this trial."""
    said = ended.said[-700:]
    if "Traceback (most recent call last)" in ended.said:
        lines = [line for line in ended.err.splitlines() if line.strip(" ^~")]
        ours = [line.strip() for line in lines if f'"{ROOT}/' in line and "/.venv/" not in line]
        raise AssertionError(f"traceback, code {ended.code}: {lines[-1][:300]} ({'; '.join(ours[-2:])})")
    assert ended.code in (codes or CODES), f"code {ended.code}: {said}"
    if ended.code == REFUSED:
        lines = [line for line in ended.err.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1, f"{len(lines)} error lines: {said}"


def error_line(ended: Ended) -> str:
    """The error that a command printed; empty if there was none."""
    return next((line for line in ended.err.splitlines() if line.startswith("error: ")), "")


def run_case(case: Case) -> Outcome:
    started = time.monotonic()
    try:
        failures = list(case.check() or ())
    except Exception as error:  # a failure of the case, also where the suite itself is wrong
        failures = [
            " ".join(f"{'' if isinstance(error, AssertionError) else type(error).__name__ + ' '}{error}".split())
        ]
    return Outcome(case, failures, time.monotonic() - started)


_cases: Sequence[Case] = ()  # of the pool: its processes are forked after this is set
_until = 0.0


def _run_numbered(index: int) -> tuple[int, list[str], float] | None:
    if time.time() > _until:
        return None
    outcome = run_case(_cases[index])
    return index, outcome.failures, outcome.seconds


def run_cases(cases: Sequence[Case], jobs: int, minutes: float) -> Iterator[Outcome]:
    """Yield the outcome of each case that began before the time was up. The order is mixed, and the same each time."""
    global _cases, _until
    mixed = random.Random(0).sample(range(len(cases)), len(cases))
    order = sorted(mixed, key=lambda index: not cases[index].first)
    _cases, _until = cases, time.time() + 60 * minutes
    if jobs == 1:
        for index in order:
            if time.time() <= _until:
                yield run_case(cases[index])
        return
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("fork")) as pool:
        for done in as_completed([pool.submit(_run_numbered, index) for index in order]):
            if (result := done.result()) is not None:
                yield Outcome(cases[result[0]], *result[1:])
