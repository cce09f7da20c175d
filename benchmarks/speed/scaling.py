"""How time and memory grow with the number of rows, their length, and the vocabulary.

    python -m benchmarks.speed.scaling rows                            # the plan of an epoch; for preparation and
                                                                       # start see benchmarks/prepare.py scale
    python -m benchmarks.speed.scaling length --rows rows.npz [--sides ours trl] [--trl-python PYTHON_WITH_TRL]
    python -m benchmarks.speed.scaling vocabulary --rows rows.npz

For length and vocabulary a step has one row of exactly that length. Each measurement runs in its own process.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.speed.record import high_water
from benchmarks.speed.rows import ROOT, Rows
from benchmarks.speed.run import Runs, parse_side
from benchmarks.speed.shapes import SHAPES, VOCABULARY
from benchmarks.speed.table import rate, shown
from benchmarks.speed.tasks import common, steps_of

STEPS = 3  # the first is not timed
RUNS = 3


def plan_rows(size: int) -> None:
    """Plan an epoch of `size` rows with a log-normal distribution of lengths, similar to that of real rows."""
    from datamodules.batches.plan import StepSize, plan_epoch

    lengths = np.random.default_rng(0).lognormal(7, 0.7, size).clip(64, 4096).astype(np.int64)
    before, seconds = high_water(), []
    for epoch in range(RUNS):
        started = time.perf_counter()
        plan = plan_epoch(lengths, lengths - 60, StepSize(4, 4), 0, epoch)
        seconds.append(time.perf_counter() - started)
        del plan
    print(f"{size:8} rows  {statistics.median(seconds):8.3f} s to plan an epoch  {high_water() - before:6.3f} GB more")


def train(args: argparse.Namespace, runs: Runs) -> None:
    by_length = args.what == "length"
    titles = "".join(f"{title:>10}" for title in ("s/step", "tokens/s", "peak GB", "prepare s"))
    print(f"{args.shape}, {args.dtype}\n{args.what:12}{'side':24}{titles}")
    for value in args.values or ([256, 512, 1024, 2048, 4096, 8192] if by_length else [VOCABULARY, 303_872, 607_744]):
        length, vocabulary = (value, VOCABULARY) if by_length else (args.length, value)
        with tempfile.TemporaryDirectory() as scratch:
            rows, path = Rows.load(args.rows).of_length(length, STEPS), Path(scratch) / "rows.npz"
            rows.save(path)
            task = common(args, runs, args.shape, args.dtype, vocabulary) | {"rows": str(path)}
            task |= steps_of(rows, [[k] for k in range(STEPS)], False, 1)
            for side in args.sides:
                result = runs.one(task | parse_side(side), seconds=args.run_seconds)
                runs.keep({args.what: value, "side": side, **result})
                print(line(value, side, result), flush=True)


def line(value: int, side: str, result: dict[str, Any]) -> str:
    speed = rate(result, 1)
    seconds = statistics.median(result["seconds"][1:]) if result.get("seconds", [])[1:] else None
    figures = (seconds, ".3f"), (speed, ".1f"), (result.get("peak"), ".2f"), (result.get("prepare"), ".2f")
    return f"{value:<12}{side:24}" + "".join(shown(*figure) for figure in figures)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["rows", "length", "vocabulary"])
    parser.add_argument("--values", type=int, nargs="+", help="replaces the default values")
    parser.add_argument("--rows", type=Path, help="made by python -m benchmarks.speed.rows")
    parser.add_argument("--length", type=int, default=512, help="tokens of a row while the vocabulary grows")
    parser.add_argument("--sides", nargs="+", default=["ours"])
    parser.add_argument("--shape", choices=SHAPES, default="medium")
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="float32")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--out", type=Path, default=Path("scaling.jsonl"), help="results are appended")
    parser.add_argument("--models", type=Path, default=Path("/tmp/speed-models"))
    parser.add_argument("--trl-python")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--run-seconds", type=float, default=300)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)  # of the process for one number of rows
    args = parser.parse_args()
    args.workers, args.lr, args.train_new_tokens = 0, 1e-4, False
    if args.one:
        plan_rows(args.one)
    elif args.what == "rows":
        for size in args.values or [1_000, 10_000, 50_000, 250_000]:
            command = [sys.executable, "-m", "benchmarks.speed.scaling", "rows", "--one", str(size)]
            subprocess.run(command, cwd=ROOT, check=True)
    else:
        if args.rows is None:
            parser.error("--rows is missing: make the file with python -m benchmarks.speed.rows")
        train(args, Runs(args.out, time.monotonic() + 60 * args.minutes, args.trl_python))


if __name__ == "__main__":
    main()
