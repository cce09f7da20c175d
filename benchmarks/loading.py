"""Measure the time for a batch: made when it is needed, ahead by threads, or ahead by processes of a DataLoader.

    python -m benchmarks.loading [--rows 20000] [--batches 500] [--repeat 3]

Examples of 200 to 900 tokens are read at random from a file in the page cache. `wait`: the time that a training step
waits for its batch if steps take 20 ms; the process sleeps meanwhile, as if a GPU computed. `alone`: the time per batch
without steps in between.
"""

import argparse
import statistics
import tempfile
import time
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import DataLoader

from datamodules.batches.collate import Batch
from datamodules.batches.loader import PlannedBatches
from datamodules.batches.plan import PlannedBatch
from datamodules.prepare.token_dataset import TokenDataset, TokenDatasetWriter
from datamodules.tokens.process import ProcessedExample

STEP = 0.02  # seconds; a small model on a fast GPU


def write_rows(path: Path, number: int) -> TokenDataset:
    random, writer = np.random.default_rng(0), TokenDatasetWriter(path)
    for row in range(number):
        length = int(random.integers(200, 900))
        ids = random.integers(0, 150_000, length).astype(np.int32)
        roles = (np.arange(length) >= 60).astype(np.int8)
        writer.add(ProcessedExample(str(row), ids=ids, roles=roles, supervised=length - 60))
    writer.close()
    return TokenDataset(path)


class ByIndex(PlannedBatches):
    """The same batches, by index, for a DataLoader."""

    def __getitem__(self, index: int) -> Batch:
        return self.make(self.planned[index])


def ways(rows: TokenDataset, planned: list[PlannedBatch]) -> Iterator[tuple[str, Iterable[Any]]]:
    for threads in (0, 2, 4):
        yield f"{threads} threads" if threads else "this thread", PlannedBatches(rows, planned, 0, threads)
    by_index: Any = ByIndex(rows, planned, 0)
    for processes in (2, 4):
        yield f"{processes} processes", DataLoader(by_index, batch_size=None, num_workers=processes)


def measure(loader: Iterable[Any], step: float) -> tuple[float, float]:
    """Return the seconds to the first batch, and the mean seconds of waiting for each other batch."""
    begun = time.perf_counter()
    batches: Iterator[Any] = iter(loader)
    next(batches)
    first, waited, number = time.perf_counter() - begun, 0.0, 0
    while True:
        time.sleep(step)
        begun = time.perf_counter()
        try:
            next(batches)
        except StopIteration:
            return first, waited / number
        waited, number = waited + time.perf_counter() - begun, number + 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--batches", type=int, default=500)
    parser.add_argument("--repeat", type=int, default=3)
    args = parser.parse_args()
    warnings.filterwarnings("ignore", "This DataLoader will create")  # more workers than this machine has cores
    with tempfile.TemporaryDirectory() as scratch:
        rows = write_rows(Path(scratch) / "train.arrow", args.rows)
        print("rows  made by       first ms   alone ms    wait ms")
        for size in (4, 32):
            chosen = np.random.default_rng(size).integers(0, args.rows, (args.batches, size)).tolist()
            planned = [PlannedBatch(tuple(batch), 1) for batch in chosen]
            for name, loader in ways(rows, planned):
                alone = [measure(loader, 0.0) for _ in range(args.repeat)]
                wait = 1000 * statistics.median(measure(loader, STEP)[1] for _ in range(args.repeat))
                first, each = (1000 * statistics.median(column) for column in zip(*alone, strict=True))
                print(f"{size:4}  {name:12} {first:9.1f}  {each:9.2f}  {wait:9.2f}", flush=True)


if __name__ == "__main__":
    main()
