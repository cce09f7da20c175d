"""Compare speed, memory and losses of this project, of TRL, and of plain transformers with peft.

All sides train on the same examples, in the same steps, from the same model folder, one after another, each in its own
process.

    python -m benchmarks.speed.rows rows.npz               # once; see there
    python -m benchmarks.speed --rows rows.npz --trl-python PYTHON_WITH_TRL --out cpu.jsonl
    python -m benchmarks.speed --rows rows.npz --device cuda --shape qwen1.5-1.8b --length 512 4096 \\
        --dtype bfloat16 float16 --kind padded packed --out gpu.jsonl
    python -m benchmarks.speed --rows rows.npz --device cuda --shape qwen1.5-1.8b --dtype bfloat16 --largest
    python -m benchmarks.speed --rows rows.npz --shape medium --sides ours --profile traces

A side is ours, trl or plain, with options after a colon: trl:checkpointing, trl:attention=flex_attention,liger.
theirs.py lists the options of trl and plain. The options of ours are arguments of ThinkTuner:
ours:gradient_checkpointing=true. Each line of --out is a JSON object, written as soon as it is measured, so a stopped
benchmark keeps its results. The last lines are the summaries. Ratios are medians over the repetitions; each repetition
runs all sides. Losses are compared step by step. If they differ by more than 1e-3, the summary marks the comparison as
invalid.
"""

import argparse
import itertools
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.speed.plan import KINDS, plan
from benchmarks.speed.rows import Rows
from benchmarks.speed.run import Runs, parse_side
from benchmarks.speed.shapes import SHAPES
from benchmarks.speed.table import summarize
from benchmarks.speed.tasks import common, steps_of

RAMP = [1, 2, 3, 4, 5, 6, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256]


def compare(args: argparse.Namespace, runs: Runs) -> None:
    rows = Rows.load(args.rows)
    for shape, dtype, length, kind in itertools.product(args.shape, args.dtype, args.length, args.kind):
        case = {"shape": shape, "dtype": dtype, "length": length, "kind": kind, "batch": args.batch}
        steps = plan(rows.lengths, kind, args.batch, length, args.warm + args.steps)
        task = common(args, runs, shape, dtype) | steps_of(rows, steps, kind == "packed", args.warm)
        found: list[dict[str, Any]] = []
        for repetition in range(args.repeat):
            sides = [*args.sides[repetition % len(args.sides) :], *args.sides[: repetition % len(args.sides)]]
            for side in [*sides, "rates"]:
                profile = str(args.profile / f"{shape}-{dtype}-{length}-{kind}-{side}.json") if args.profile else None
                given = task | parse_side(side) | {"profile": profile}
                result = runs.one(given, seconds=args.run_seconds)
                found.append({"repetition": repetition, "name": side, **result})
                runs.keep({"case": case, **found[-1]})
        summary = summarize(case, task, found)
        runs.keep({"summary": summary.figures})
        print(summary.text, flush=True)


def largest(args: argparse.Namespace, runs: Runs) -> None:
    """Train on larger and larger batches of rows of full length, two steps each, until memory is full."""
    rows = Rows.load(args.rows)
    for shape, dtype, length, side in itertools.product(args.shape, args.dtype, args.length, args.sides):
        full, sizes = rows.of_length(length, RAMP[-1]), [n for n in RAMP if n <= args.most for _ in range(2)]
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / "rows.npz"
            full.save(path)
            given = steps_of(full, [list(range(n)) for n in sizes], "packed" in args.kind, 0)
            task = common(args, runs, shape, dtype) | given | {"rows": str(path), "ramp": True} | parse_side(side)
            result = runs.one(task, seconds=args.run_seconds)
        fitting = [n for n, _ in zip(sizes, result.get("losses", []), strict=False)]
        case = {"shape": shape, "dtype": dtype, "length": length, "side": side}
        runs.keep({"largest": max(fitting, default=0), "sizes": fitting, "case": case, **result})
        print(f"{shape} {dtype} {length} {side}: up to {max(fitting, default=0)} rows", flush=True)
        speeds = zip(sizes, result.get("seconds", []), result.get("tokens", []), result.get("peaks", []), strict=False)
        for n, seconds, tokens, peak in list(speeds)[1::2]:
            print(f"  {n:4} rows  {tokens / seconds:10.0f} supervised tokens/s  {peak[0]:6.1f} GB", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.speed", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=Path, required=True, help="made by python -m benchmarks.speed.rows")
    parser.add_argument("--out", type=Path, default=Path("speed.jsonl"), help="results are appended")
    parser.add_argument("--models", type=Path, default=Path("/tmp/speed-models"), help="folder of the models")
    parser.add_argument("--trl-python", help="interpreter with trl; by default this one")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--sides", nargs="+", default=["ours", "trl", "plain"])
    parser.add_argument("--shape", nargs="+", choices=SHAPES, default=["medium"])
    parser.add_argument("--dtype", nargs="+", choices=["float32", "bfloat16", "float16"], default=["float32"])
    parser.add_argument("--length", type=int, nargs="+", default=[512], help="most tokens of a row or a pack")
    parser.add_argument(
        "--kind", nargs="+", choices=KINDS, default=["padded"], help="how steps are formed; see plan.py"
    )
    parser.add_argument("--batch", type=int, default=4, help="rows or packs of a step")
    parser.add_argument("--warm", type=int, default=1, help="steps before the timing starts")
    parser.add_argument("--steps", type=int, default=4, help="timed steps")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--workers", type=int, help="loader threads (ours) or processes (trl, plain); by default 2 on CUDA, else 0"
    )
    parser.add_argument("--lr", type=float, default=1e-4)
    parser.add_argument(
        "--train-new-tokens", action="store_true", help="at the full rate (ours); use it with trl:new_tokens"
    )
    parser.add_argument("--profile", type=Path, help="folder for traces of torch.profiler; tracing takes time")
    parser.add_argument("--largest", action="store_true", help="find the largest batch instead")
    parser.add_argument("--most", type=int, default=RAMP[-1], help="rows at which --largest stops")
    parser.add_argument("--minutes", type=float, default=60, help="time limit of the benchmark")
    parser.add_argument("--run-seconds", type=float, default=600, help="time limit of one process")
    args = parser.parse_args()
    if args.largest and args.device != "cuda":
        parser.error("--largest needs a GPU: add --device cuda")
    if args.workers is None:
        args.workers = 2 if args.device == "cuda" else 0
    if args.profile:
        args.profile.mkdir(parents=True, exist_ok=True)
    runs = Runs(args.out, time.monotonic() + 60 * args.minutes, args.trl_python)
    runs.keep({"arguments": json.loads(json.dumps(vars(args), default=str)), "commit": runs.commit()})
    (largest if args.largest else compare)(args, runs)


if __name__ == "__main__":
    main()
