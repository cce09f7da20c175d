"""Trains the same rows, in the same steps, from the same model directory with each side in turn, each time in a process
of its own, and holds speed, memory and losses against each other.

    python -m benchmarks.speed.rows rows.npz               # once; see there
    python -m benchmarks.speed --rows rows.npz --trl-python PYTHON_WITH_TRL --out cpu.jsonl
    python -m benchmarks.speed --rows rows.npz --device cuda --shape qwen1.5-1.8b --length 512 4096 \\
        --dtype bfloat16 float16 --kind padded packed --out gpu.jsonl
    python -m benchmarks.speed --rows rows.npz --device cuda --shape qwen1.5-1.8b --dtype bfloat16 --largest
    python -m benchmarks.speed --rows rows.npz --shape medium --sides ours --profile traces

A side is ours, trl or plain, with options after a colon: trl:checkpointing, trl:attention=flex_attention,liger;
theirs.py says which there are. Those of ours are arguments of ThinkTuner: ours:gradient_checkpointing=true. Every line
of --out is a JSON object, written as it is known, so a run that is stopped keeps what it has; the last ones are the
summaries. Ratios are medians over the repetitions, each of which runs all sides. Losses are compared step by step; a
comparison whose losses differ by more than 1e-3 is marked as not counting.
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
    """Batches of rows of full length, larger and larger, two steps each, until memory is full."""
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
    parser.add_argument("--out", type=Path, default=Path("speed.jsonl"), help="is added to")
    parser.add_argument("--models", type=Path, default=Path("/tmp/speed-models"), help="made there once")
    parser.add_argument("--trl-python", help="interpreter of trl's runs; default: this one")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--sides", nargs="+", default=["ours", "trl", "plain"])
    parser.add_argument("--shape", nargs="+", choices=SHAPES, default=["medium"])
    parser.add_argument("--dtype", nargs="+", choices=["float32", "bfloat16", "float16"], default=["float32"])
    parser.add_argument("--length", type=int, nargs="+", default=[512], help="tokens of a row, or of a pack, at most")
    parser.add_argument("--kind", nargs="+", choices=KINDS, default=["padded"], help="plan.py says what they are")
    parser.add_argument("--batch", type=int, default=4, help="rows, or packs, of a step")
    parser.add_argument("--warm", type=int, default=1, help="steps that are not timed")
    parser.add_argument("--steps", type=int, default=4, help="steps that are")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--workers", type=int, help="of a loader: ours threads, else processes; default 2 on CUDA, else 0"
    )
    parser.add_argument("--lr", type=float, default=1e-4)
    parser.add_argument("--train-rows", action="store_true", help="ours at the full rate; give the peers :rows")
    parser.add_argument("--profile", type=Path, help="folder for torch.profiler's traces, which cost time")
    parser.add_argument("--largest", action="store_true", help="look for the largest batch instead")
    parser.add_argument("--most", type=int, default=RAMP[-1], help="rows at which --largest stops")
    parser.add_argument("--minutes", type=float, default=60, help="after which nothing more is started, and all is cut")
    parser.add_argument("--run-seconds", type=float, default=600, help="of one process, at most")
    args = parser.parse_args()
    if args.largest and args.device != "cuda":
        parser.error("--largest looks for the end of a GPU's memory: give --device cuda")
    if args.workers is None:
        args.workers = 2 if args.device == "cuda" else 0
    if args.profile:
        args.profile.mkdir(parents=True, exist_ok=True)
    runs = Runs(args.out, time.monotonic() + 60 * args.minutes, args.trl_python)
    runs.keep({"arguments": json.loads(json.dumps(vars(args), default=str)), "commit": runs.commit()})
    (largest if args.largest else compare)(args, runs)


if __name__ == "__main__":
    main()
