"""Measures packing: how full the packs of real rows are, and how long the plan of an epoch takes.

    python benchmarks/plan.py filled [--rows FILE.jsonl …] [--tokenizer FOLDER]
    python benchmarks/plan.py time [--rows-planned 250000]

`filled` packs the rows of --rows that fit into each length. Beside it stands what no packing could exceed: rows longer
than half a pack need one each, and all tokens need their room. `time` plans epochs of synthetic rows whose lengths are
log-normal, a quarter of the capacity at the median; the least of five runs in one process.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
REAL = ROOT.parent / "shared"  # real rows and a real tokenizer where this is developed; not a part of the project
CAPACITIES = (512, 1024, 2048, 4096)
SPLITS = ("sentence", "none")
REPEAT = 5

from datamodules.batches.packing import best_fit  # noqa: E402
from datamodules.batches.plan import Shape, StepSize, plan_epoch, steps_per_epoch  # noqa: E402
from datamodules.magpie import MagpieDataModule  # noqa: E402
from datamodules.text.steps import StepSettings  # noqa: E402


def real_lengths(rows: list[Path], tokenizer: Path, split: str) -> np.ndarray:
    """Tokens of each row, whatever its length; none is left out as a near duplicate."""
    with tempfile.TemporaryDirectory() as scratch:
        folder, merged = Path(scratch) / "tokenizer", Path(scratch) / "rows.jsonl"
        shutil.copytree(tokenizer, folder, copy_function=shutil.copyfile)
        if not (folder / "config.json").exists():  # a folder with a tokenizer only is no model's
            (folder / "config.json").write_text(json.dumps({"model_type": "qwen2"}))
        merged.write_text("".join(path.read_text() for path in rows))
        data = MagpieDataModule(
            str(merged), steps=StepSettings(split), max_length=10**6, train_rows=None, val_rows=None,
            near_duplicate_threshold=None, tokenizer=str(folder),
        )  # fmt: skip
        return np.array([len(outcome.ids) for outcome, _, kept in data.processed_examples() if kept is not None])


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
        for plain in (StepSize(4, 4, 4), StepSize(4, 1, 1)):
            packs = best_fit(lengths, capacity, np.arange(len(lengths)))[1]
            steps = min(packs, max(1, round(len(lengths) / plain.rows_per_step)))
            for packing in ("none", "grouped", "packed"):
                chosen: Shape = packing  # type: ignore[assignment]
                packed = (capacity, steps) if packing == "packed" else (None, None)
                sizes = StepSize(plain.batch_size, plain.accumulate, plain.world_size, chosen, *packed)
                took = []
                for epoch in range(REPEAT):
                    started = time.perf_counter()
                    plan_epoch(lengths, supervised, sizes, 0, epoch)
                    took.append(time.perf_counter() - started)
                many = steps_per_epoch(len(lengths), sizes)
                print(f"| {capacity:,} | {plain.rows_per_step} | {packing} | {many:,} | {min(took):.2f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["filled", "time"])
    parser.add_argument("--rows", type=Path, nargs="+", default=sorted((REAL / "real").glob("*.jsonl")))
    parser.add_argument("--tokenizer", type=Path, default=REAL / "qwen1.5-tokenizer")
    parser.add_argument("--rows-planned", type=int, default=250_000)
    args = parser.parse_args()
    if args.what == "time":
        seconds(args)
    elif not args.rows or not (args.tokenizer / "tokenizer.json").is_file():
        sys.exit("give --rows FILE.jsonl (with instruction and response) and --tokenizer FOLDER (with tokenizer.json)")
    else:
        filled(args)


if __name__ == "__main__":
    main()
