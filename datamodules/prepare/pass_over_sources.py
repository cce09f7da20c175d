"""One pass over the sources, until every split has its rows. It decides which rows are kept, and in which split.

Rows are read here, in order. The expensive work (parsing, splitting, tokenizing) is done for a few hundred rows at
once, in worker processes if there are many rows. The result does not depend on the number of processes.
"""

import gc
import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from itertools import islice
from typing import NamedTuple

from datamodules.prepare.mix import Part
from datamodules.prepare.stats import DataStats
from datamodules.rows.filters import Filters
from datamodules.rows.near_duplicates import DedupIndex
from datamodules.text.example import RawExample
from datamodules.tokens.process import OVERLONG, ProcessedExample, ProcessingConfig, process
from datamodules.tokens.tokenizer import Encoder
from errors import UserError

CHUNK = 256  # rows processed together
CHUNKS_HERE = 16  # chunks processed in this process before worker processes are worth their start
GIVE_UP_AFTER = 20_000  # rows of an endless source; if none of them is kept, the pass stops with an error
NEAR = {False: "near duplicate of a held-out instruction", True: "near duplicate of a training instruction"}

Quotas = dict[str, int | None]  # number of rows for "train", and for "val" and then "test"; None for all


class _ReadRow(NamedTuple):
    position: int
    raw: RawExample
    held_out: bool | None  # None for a row without an instruction
    needed: bool  # whether its side had room when it was read; a row that is not needed is not processed


class PassOverSources:
    """Yields (processed example, name of its source, its split or None if dropped) and fills `stats`.

    Rows of a side whose splits are full are read and skipped. With weights, the pass ends when one source is exhausted.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        encoder: Encoder,
        quotas: Quotas,
        near_duplicate_threshold: float | None = None,
        num_proc: int = 1,
        texts: bool = False,
    ) -> None:
        self.parts, self.encoder, self.quotas = parts, encoder, quotas
        self.num_proc, self.texts = num_proc, texts
        self.stats = DataStats(kept=dict.fromkeys(quotas, 0), tokens=dict.fromkeys(quotas, 0))
        self.dedup = DedupIndex(near_duplicate_threshold) if near_duplicate_threshold is not None else None
        self.pool: Executor | None = None  # started when there are enough rows

    def __iter__(self) -> Iterator[tuple[ProcessedExample, str, str | None]]:
        weighted = any(part.weight is not None for part in self.parts)
        weights = [part.weight or 1.0 for part in self.parts]
        kept = [0] * len(self.parts)
        with ExitStack() as self.stack:
            # Without this the garbage collector scans all objects of the libraries at every few thousand new tuples.
            gc.freeze()
            self.stack.callback(gc.unfreeze)
            streams = [self.processed(part) for part in self.parts]
            open_parts = set(range(len(self.parts)))
            while open_parts and self.needs_any():
                turn = min(open_parts, key=lambda k: (kept[k] / weights[k], k))
                found = next(streams[turn], None)
                if found is None:
                    if weighted:
                        break
                    open_parts.remove(turn)
                    continue
                read, example = found
                self.stats.read += 1
                if example is None or (read.held_out is not None and self.open_split(read.held_out) is None):
                    continue  # its side is full
                source = self.parts[turn].source
                split = self.place(example, bool(read.held_out), source.name)
                kept[turn] += split is not None
                if source.endless and read.position >= GIVE_UP_AFTER and not kept[turn]:
                    self.require_rows()
                yield example, source.name, split

    def place(self, example: ProcessedExample, held_out: bool, source: str) -> str | None:
        """Count the row and return its split, or None if it is dropped."""
        if example.length:
            self.stats.measure(example)
        if example.reason is None and self.dedup is not None and example.signature is not None:
            if self.dedup.crosses(example.signature, held_out):
                example.reason = NEAR[held_out]
            else:
                self.dedup.add(example.signature, held_out)
        if example.reason is not None:
            self.stats.drop(example.reason, example.row_id)
            return None
        split = self.open_split(held_out)
        assert split is not None
        self.stats.keep(example, split, source)
        return split

    def open_split(self, held_out: bool) -> str | None:
        """The split of the next row of this side, or None if the side is full."""
        for split, rows in self.quotas.items():
            if (split != "train") == held_out and (rows is None or self.stats.kept[split] < rows):
                return split
        return None

    def needs_any(self) -> bool:
        """Whether a split still needs rows."""
        return self.open_split(True) is not None or self.open_split(False) is not None

    def processed(self, part: Part) -> Iterator[tuple[_ReadRow, ProcessedExample | None]]:
        """Yield every row of a part, with its processed example if the row is needed."""
        signatures = self.dedup is not None and part.source.comparable
        rows = self.read(part)
        waiting: deque[tuple[list[_ReadRow], Future[list[ProcessedExample]]]] = deque()
        done = 0
        while (chunk := list(islice(rows, CHUNK))) or waiting:
            if chunk:
                raws = [read.raw for read in chunk if read.needed]
                if self.num_proc == 1 or done < CHUNKS_HERE:
                    yield from _paired(chunk, process(raws, part.config, self.encoder, self.texts, signatures))
                    done += 1
                    continue
                job = self.workers().submit(_process_in_worker, raws, part.config, self.texts, signatures)
                waiting.append((chunk, job))
            if len(waiting) > 2 * self.num_proc or not chunk:
                chunk, job = waiting.popleft()
                try:
                    examples = job.result()
                except BrokenProcessPool as error:
                    problem = "is too many processes: one was killed, most likely for lack of memory"
                    raise UserError("data.num_proc", self.num_proc, problem, "give a smaller number") from error
                yield from _paired(chunk, examples)

    def read(self, part: Part) -> Iterator[_ReadRow]:
        """Yield the rows of a part, each with its side. Raises UserError for missing columns."""
        columns = part.config.columns
        for position, row in enumerate(part.source.rows()):
            if position == 0:
                columns.check(list(row))
                Filters(part.config.filters).check(list(row))
            raw = columns.read(row, position)
            held_out = part.source.held_out(row, raw.instruction) if isinstance(raw.instruction, str) else None
            yield _ReadRow(position, raw, held_out, held_out is None or self.open_split(held_out) is not None)

    def workers(self) -> Executor:
        """The worker processes, started at the first call."""
        if self.pool is None:
            # Spawned, because the threads of the tokenizer and of torch do not survive a fork
            context = multiprocessing.get_context("spawn")
            pool = ProcessPoolExecutor(self.num_proc, context, _start_worker, (self.encoder,))
            self.stack.callback(pool.shutdown, wait=True, cancel_futures=True)
            self.pool = pool
        return self.pool

    def require_rows(self) -> None:
        """Raise UserError for a split without any row. The error has the reasons of the dropped rows."""
        stats, names = self.stats, ", ".join(part.source.name for part in self.parts)
        if not stats.read:
            raise UserError("data.source", names, "holds no rows", "give a source with rows in it")
        empty = next((split for split, rows in stats.kept.items() if not rows), None)
        if empty is None:
            return
        why = ", ".join(f"{count} {reason}" for reason, count in stats.dropped.items()) or "no row belongs to it"
        problem = f"leaves no row for {empty} of {stats.read:,} read ({why})"
        if any(reason.startswith("data.filters") for reason in stats.dropped):
            fix = "loosen the filters, or look at python cli.py preview"
            raise UserError("data.filters", None, f"{names} {problem}", fix)
        fix = "change data.heldout_ratio or the data"
        if OVERLONG in stats.dropped:
            fix = f"raise data.max_length ({self.parts[0].config.max_length}) or give other data"
        raise UserError("data.source", names, problem, fix)


def _paired(
    chunk: list[_ReadRow], examples: list[ProcessedExample]
) -> Iterator[tuple[_ReadRow, ProcessedExample | None]]:
    following = iter(examples)
    for read in chunk:
        yield read, next(following) if read.needed else None


# In the worker processes

_encoder: Encoder


def _start_worker(encoder: Encoder) -> None:
    global _encoder
    _encoder = encoder
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # data.num_proc already sets the number of processes
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # on Ctrl-C the first process ends the workers


def _process_in_worker(
    raws: list[RawExample], config: ProcessingConfig, texts: bool, signatures: bool
) -> list[ProcessedExample]:
    return process(raws, config, _encoder, texts, signatures)
