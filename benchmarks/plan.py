"""Measure packing: the fill of packs of real rows, and the time for the plan of an epoch.

    python -m benchmarks.plan filled [--rows FILE.jsonl …] [--tokenizer FOLDER]
    python -m benchmarks.plan time [--rows-planned 250000]

`filled` packs the rows of --rows that fit into each length. An upper limit stands beside it: each row longer than half
a pack needs a pack of its own, and the packs must hold all tokens. `time` plans epochs of synthetic rows. Their lengths
are log-normal with a median of a quarter of the capacity. The least of five runs in one process counts.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.real_inputs import MISSING, row_files, tokenizer_folder
from datamodules.batches.packing import best_fit
from datamodules.batches.plan import PackingMode, StepSize, plan_epoch, steps_per_epoch
from datamodules.magpie import MagpieDataModule
from datamodules.text.steps import StepSettings

CAPACITIES = (512, 1024, 2048, 4096)
SPLITS = ("sentence", "none")
REPEAT = 5


def real_lengths(rows: list[Path], tokenizer: Path, split: str) -> np.ndarray:
    """Return the tokens of each row of any length, near duplicates included."""
    with tempfile.TemporaryDirectory() as scratch:
        folder, merged = Path(scratch) / "tokenizer", Path(scratch) / "rows.jsonl"
        shutil.copytree(tokenizer, folder, copy_function=shutil.copyfile)
        if not (folder / "config.json").exists():  # a model folder needs a config
            (folder / "config.json").write_text(json.dumps({"model_type": "qwen2"}))
        merged.write_text("".join(path.read_text() for path in rows))
        data = MagpieDataModule(
            str(merged), steps=StepSettings(split), max_length=10**6, train_rows=None, val_rows=None,
            near_duplicate_threshold=None, tokenizer=str(folder),
        )  # fmt: skip
        return np.array([len(example.ids) for example, _, split in data.processed_examples() if split is not None])


def filled(args: argparse.Namespace) -> None:
    print("| max_length | rows that fit | mean tokens | packs | full | most possible |\n|---|---|---|---|---|---|")
    for split in SPLITS:
        found = real_lengths(args.rows, args.tokenizer, split)
        for capacity in CAPACITIES:
            lengths = found[found <= capacity]
            packs = best_fit(lengths, capacity, np.arange(len(lengths)))[1]
            total, alone = int(lengths.sum()), int((2 * lengths > capacity).sum())
            fewest = max(alone, -(-total // capacity))
            print(
                f"| {capacity:,}, {split} | {len(lengths):,} | {lengths.mean():.0f} | {packs:,} "
                f"| {100 * total / (packs * capacity):.1f}% | {100 * total / (fewest * capacity):.1f}% |"
            )


def seconds(args: argparse.Namespace) -> None:
    print("| max_length | rows a step | packing | steps | seconds |\n|---|---|---|---|---|")
    for capacity in CAPACITIES:
        drawn = np.random.default_rng(1).lognormal(np.log(capacity / 4), 0.7, args.rows_planned)
        lengths = np.clip(drawn, 16, capacity).astype(np.int64)
        supervised = lengths * 85 // 100
        for unpacked in (StepSize(4, 4, 4), StepSize(4, 1, 1)):
            packs = best_fit(lengths, capacity, np.arange(len(lengths)))[1]
            steps = min(packs, max(1, round(len(lengths) / unpacked.step_capacity)))
            for packing in ("none", "packed"):
                chosen: PackingMode = packing  # type: ignore[assignment]
                packed = (capacity, steps) if packing == "packed" else (None, None)
                size = StepSize(unpacked.batch_size, unpacked.accumulate, unpacked.world_size, chosen, *packed)
                took = []
                for epoch in range(REPEAT):
                    started = time.perf_counter()
                    plan_epoch(lengths, supervised, size, 0, epoch)
                    took.append(time.perf_counter() - started)
                many = steps_per_epoch(len(lengths), size)
                print(
                    f"| {capacity:,} | {unpacked.step_capacity} | {packing} | {many:,} | {min(took):.2f} |", flush=True
                )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["filled", "time"])
    parser.add_argument("--rows", type=Path, nargs="+", default=row_files())
    parser.add_argument("--tokenizer", type=Path, default=tokenizer_folder())
    parser.add_argument("--rows-planned", type=int, default=250_000)
    args = parser.parse_args()
    if args.what == "time":
        seconds(args)
    elif not args.rows or not args.tokenizer:
        sys.exit(MISSING)
    else:
        filled(args)


if __name__ == "__main__":
    main()
