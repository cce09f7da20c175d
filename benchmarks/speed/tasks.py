"""The task of a measuring process: the model, and the steps to train."""

import argparse
from typing import Any

from benchmarks.speed.rows import Rows
from benchmarks.speed.run import Runs
from benchmarks.speed.shapes import VOCABULARY

RANK, ALPHA, TARGETS = 8, 16, ["q_proj", "k_proj", "v_proj", "o_proj"]


def common(
    args: argparse.Namespace, runs: Runs, shape: str, dtype: str, vocabulary: int = VOCABULARY
) -> dict[str, Any]:
    """Return the part that all tasks of a model share. Make the model if it does not exist."""
    folder = args.models / f"{shape}-{dtype}-{vocabulary}-{args.device}"
    task = {
        "device": args.device, "dtype": dtype, "shape": shape, "vocabulary": vocabulary, "model": str(folder),
        "rows": str(args.rows.resolve()), "threads": args.threads, "rank": RANK, "alpha": ALPHA, "targets": TARGETS,
        "lr": args.lr, "workers": args.workers, "train_new_tokens": args.train_new_tokens,
    }  # fmt: skip
    if not (folder / "made").exists():
        runs.one({"side": "model", **task}, seconds=600)
    return task


def steps_of(rows: Rows, steps: list[list[int]], flat: bool, warm: int) -> dict[str, Any]:
    """Return the part of a task that names the rows of each step. flat: without padding."""
    return {
        "steps": steps, "flat": flat, "warm": warm, "supervised": [sum(map(rows.supervised, s)) for s in steps],
        "lengths": [[int(rows.lengths[row]) for row in step] for step in steps],
    }  # fmt: skip
