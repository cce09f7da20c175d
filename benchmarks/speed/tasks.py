"""What a measuring process is told: the model, and the steps that it trains."""

import argparse
from typing import Any

from benchmarks.speed.rows import Rows
from benchmarks.speed.run import Runs
from benchmarks.speed.shapes import VOCABULARY

RANK, ALPHA, TARGETS = 8, 16, ["q_proj", "k_proj", "v_proj", "o_proj"]


def common(
    args: argparse.Namespace, runs: Runs, shape: str, dtype: str, vocabulary: int = VOCABULARY
) -> dict[str, Any]:
    """What all tasks of a model share; makes the model where it is not there."""
    folder = args.models / f"{shape}-{dtype}-{vocabulary}-{args.device}"
    task = {
        "device": args.device, "dtype": dtype, "shape": shape, "vocabulary": vocabulary, "model": str(folder),
        "rows": str(args.rows.resolve()), "threads": args.threads, "rank": RANK, "alpha": ALPHA, "targets": TARGETS,
        "lr": args.lr, "workers": args.workers, "train_rows": args.train_rows,
    }  # fmt: skip
    if not (folder / "made").exists():
        runs.one({"side": "model", **task}, seconds=600)
    return task


def steps_of(rows: Rows, steps: list[list[int]], flat: bool, warm: int) -> dict[str, Any]:
    """The part of a task that says what is trained on."""
    return {
        "steps": steps, "flat": flat, "warm": warm, "supervised": [sum(map(rows.supervised, s)) for s in steps],
        "lengths": [[int(rows.lengths[row]) for row in step] for step in steps],
    }  # fmt: skip
