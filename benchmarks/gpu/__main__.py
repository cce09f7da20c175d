"""Measure all that a GPU must show: tests, speed against TRL and plain transformers, memory, generation, learning.

    python -m benchmarks.gpu --rows rows.npz --trl-python PYTHON_WITH_TRL
    python -m benchmarks.gpu --part speed --rows rows.npz
    python -m benchmarks.gpu --table                      # only prints the table of what was measured

A call takes at most --minutes (default 8); the next one goes on with the first job without a result. Results are
appended to --out, one JSON object a line, each as soon as its job ends. A result counts for this device, these versions
and this commit; a failed job is tried again, after the others. What the machine lacks is named in a line, and the rest
runs. Without a GPU the parts run small shapes on the CPU. The last line is for docs/hardware.md.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.figures import figures
from benchmarks.gpu.jobs import OUT, PARTS, ROWS, TRL_PYTHON, Job, jobs
from benchmarks.gpu.machine import described, missing
from benchmarks.gpu.table import hardware_row, markdown
from benchmarks.speed.rows import ROOT


def run(job: Job, seconds: float, given: Mapping[str, str]) -> dict[str, Any]:
    """Return the result of a job: figures, and the problem if it failed or took longer than `seconds`."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "out"
        args = [_filled(arg, {**given, OUT: str(out)}) for arg in job.args]
        try:
            done = subprocess.run(
                [sys.executable, *args], cwd=ROOT, capture_output=True, text=True, errors="replace", timeout=seconds,
                check=False,
            )  # fmt: skip
            output, said = done.stdout, done.stderr.strip().rpartition("\n")[2] or f"exit code {done.returncode}"
            problem = said[:300] if done.returncode else None
        except subprocess.TimeoutExpired as error:
            partly = error.stdout or b""
            output = partly.decode(errors="replace") if isinstance(partly, bytes) else partly
            problem = f"stopped after {seconds:.0f} s"
        found = figures(job.part, output, out)
    return {"figures": found, "problem": problem, "seconds": round(time.monotonic() - started, 1)}


def _filled(arg: str, values: Mapping[str, str]) -> str:
    for name, value in values.items():
        arg = arg.replace(name, value)
    return arg


def left(all_jobs: Sequence[Job], results: Sequence[Mapping[str, Any]], state: Mapping[str, str]) -> list[Job]:
    """Return the jobs without a good result of this state of machine and code; those that failed come last."""
    known = {(one["part"], one["job"]): one["problem"] for one in results if state.items() <= one.items()}
    remaining = [job for job in all_jobs if known.get((job.part, job.name), "none yet")]
    return sorted(remaining, key=lambda job: (job.part, job.name) in known)


def read(out: Path) -> list[dict[str, Any]]:
    """Return the results in a file. The last line may be cut by a kill."""
    found = []
    for line in out.read_text(encoding="utf-8").splitlines() if out.is_file() else ():
        try:
            found.append(json.loads(line))
        except ValueError:
            print(f"{out}: a line is cut, and is not used")
    return found


def keep(out: Path, result: Mapping[str, Any]) -> None:
    """Append a result. A cut last line gets its end first."""
    with out.open("a+b") as file:
        if file.tell():
            file.seek(-1, 2)
            if file.read(1) != b"\n":
                file.write(b"\n")
        file.write(json.dumps(result).encode() + b"\n")


def main(args: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--device", choices=["cpu", "cuda"], help="by default the GPU, if there is one")
    parser.add_argument("--rows", type=Path, help="made by python -m benchmarks.speed.rows")
    parser.add_argument("--trl-python", help="interpreter with trl; by default this one")
    parser.add_argument("--out", type=Path, default=Path("gpu.jsonl"), help="results are appended")
    parser.add_argument("--minutes", type=float, default=8.0, help="most time of a call")
    parser.add_argument("--table", action="store_true", help="measure nothing")
    given = parser.parse_args(args)
    device = given.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if not given.table:
        measure(given, device)
    results = read(given.out)
    print(f"\n{markdown(results)}\n\n{hardware_row(results)}")


def measure(given: argparse.Namespace, device: str) -> None:
    """Run the jobs that are left, until the time is over."""
    deadline = time.monotonic() + 60 * given.minutes
    lacks = missing(device, given.rows, given.trl_python)
    for line in lacks.values():
        print(line)
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    state = {"machine": described(device), "commit": commit.stdout.strip()}
    chosen = [one for one in jobs(device, lacks) if one.part in given.part and not set(one.needs) & set(lacks)]
    remaining = left(chosen, read(given.out), state)
    values = {ROWS: str(given.rows and given.rows.resolve()), TRL_PYTHON: given.trl_python or sys.executable}
    for place, job in enumerate(remaining):
        if (seconds := deadline - time.monotonic()) < min(60, 30 * given.minutes):
            print(f"{len(remaining) - place} jobs are left: the same command goes on with them")
            break
        print(f"{job.part}: {job.name}", flush=True)
        result = run(job, seconds, values)
        date = f"{datetime.now():%Y-%m-%d}"
        keep(given.out, {"part": job.part, "job": job.name, **result, **state, "date": date})


if __name__ == "__main__":
    main()
