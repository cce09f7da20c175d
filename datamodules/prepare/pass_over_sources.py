"""One pass over the sources, until every split has its rows. It decides which rows are kept, and in which split.

All commands make the same pass, with train, validation and test rows, so the three never meet. The side of a row, and
whether it is a near duplicate, depend on the rows read before it, not on the numbers of rows asked for.

Rows are read here, in order. The expensive work (parsing, splitting, tokenizing) is done for a few hundred rows at
once, in worker processes if there are many rows. The result does not depend on the number of processes.
"""

import gc
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

from datamodules.layouts.conversation import RawExample
from datamodules.layouts.reader import RowReader
from datamodules.prepare.mix import Part
from datamodules.prepare.stats import DataStats
from datamodules.rows.filters import Filters
from datamodules.rows.near_duplicates import DedupIndex, signature
from datamodules.text.example import LONGEST_TEXT, each_answer
from datamodules.tokens.process import OVERLONG, ProcessedExample, ProcessingConfig, process
from datamodules.tokens.tokenizer import Encoder
from errors import UserError

FIRST_ROWS = 50  # of a source or a file, that show its layout before any row is processed
CHUNK = 256  # rows processed together
CHUNKS_HERE = 16  # chunks processed in this process before worker processes are worth their start
GIVE_UP_AFTER = 20_000  # rows of an endless source, or of one of a mix; if none is kept, the pass ends with an error
NEAR = {False: "near duplicate of a held-out instruction", True: "near duplicate of a training instruction"}

Quotas = dict[str, int | None]  # number of rows for "train", and for "val" and then "test"; None for all
FITTED = ("train", "val")  # their rows are the same for every number of test rows


class _ReadRow(NamedTuple):
    raw: RawExample
    question: str | None  # of the whole conversation, although the example may be one of its answers
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
        reading = {part.source.name: part.source.reading for part in parts if part.source.reading}
        self.stats = DataStats(kept=dict.fromkeys(quotas, 0), tokens=dict.fromkeys(quotas, 0), reading=reading)
        self.dedup = DedupIndex(near_duplicate_threshold) if near_duplicate_threshold is not None else None
        self.pool: Executor | None = None  # started when there are enough rows

    def __iter__(self) -> Iterator[tuple[ProcessedExample, str, str | None]]:
        weighted = any(part.weight is not None for part in self.parts)
        weights = [part.weight or 1.0 for part in self.parts]
        kept, barren = [0] * len(self.parts), [0] * len(self.parts)  # barren: rows processed since one was kept
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
                near = self.is_near(example, bool(read.held_out))
                if not read.needed or (read.held_out is not None and self.open_split(read.held_out) is None):
                    continue  # its side is full
                source = self.parts[turn].source
                self.stats.count_layout(f"{source.name}: {read.raw.layout}")
                fitting = any(self.has_room(split) for split in FITTED)
                split = self.place(example, bool(read.held_out), near, source.name)
                kept[turn] += split is not None and (split in FITTED or not fitting)
                barren[turn] = 0 if split else barren[turn] + 1
                if barren[turn] >= GIVE_UP_AFTER and (source.endless or (weighted and not kept[turn])):
                    raise self.gives_nothing(source.name)
                yield example, source.name, split

    def is_near(self, example: ProcessedExample, held_out: bool) -> bool:
        """Return whether a row of the other side is a near duplicate of this one; if not, remember this one.

        Every row is remembered, kept or not: so what is dropped does not depend on the splits that were full.
        """
        if self.dedup is None or example.signature is None:
            return False
        if self.dedup.crosses(example.signature, held_out):
            return True
        self.dedup.add(example.signature, held_out)
        return False

    def place(self, example: ProcessedExample, held_out: bool, near: bool, source: str) -> str | None:
        """Count the row and return its split, or None if it is dropped."""
        if example.length:
            self.stats.measure(example)
        if near:
            example.drop(NEAR[held_out])
        if example.faults:
            self.stats.drop(example)
            return None
        split = self.open_split(held_out)
        assert split is not None
        self.stats.keep(example, split, source)
        return split

    def open_split(self, held_out: bool) -> str | None:
        """The split of the next row of this side, or None if the side is full."""
        return next((s for s in self.quotas if (s != "train") == held_out and self.has_room(s)), None)

    def has_room(self, split: str) -> bool:
        """Whether a split is asked for and not full."""
        wanted = self.quotas.get(split, 0)
        return wanted is None or self.stats.kept.get(split, 0) < wanted

    def needs_any(self) -> bool:
        """Whether a split still needs rows."""
        return any(self.has_room(split) for split in self.quotas)

    def processed(self, part: Part) -> Iterator[tuple[_ReadRow, ProcessedExample]]:
        """Yield every row of a part with its processed example; of a row that is not needed only the signature."""
        signatures = self.dedup is not None and part.source.comparable
        rows = self.read(part)
        waiting: deque[tuple[list[_ReadRow], Future[list[ProcessedExample]]]] = deque()
        done = 0
        while (chunk := list(islice(rows, CHUNK))) or waiting:
            if chunk:
                rows_here = [(read.raw, read.question, read.needed) for read in chunk]
                if self.num_proc == 1 or done < CHUNKS_HERE:
                    examples = _process(rows_here, part.config, self.encoder, self.texts, signatures)
                    yield from zip(chunk, examples, strict=True)
                    done += 1
                    continue
                job = self.workers().submit(_process_in_worker, rows_here, part.config, self.texts, signatures)
                waiting.append((chunk, job))
            if len(waiting) > 2 * self.num_proc or not chunk:
                chunk, job = waiting.popleft()
                try:
                    examples = job.result()
                except BrokenProcessPool as error:
                    problem = "is too many processes: one was killed, most likely for lack of memory"
                    raise UserError("data.num_proc", self.num_proc, problem, "give a smaller number") from error
                yield from zip(chunk, examples, strict=True)

    def read(self, part: Part) -> Iterator[_ReadRow]:
        """Yield the examples of the rows of a part, each with its side, which is that of the whole conversation if an
        answer of it is an example. Raises UserError for missing columns."""
        reader = RowReader(part.config.columns, part.config.candidates)
        rows = part.source.rows()
        first = list(islice(rows, FIRST_ROWS))
        for name, head in part.source.heads(FIRST_ROWS):
            reader.check(head, name)
            for words in dict.fromkeys(reader.found(tuple(row)).words for row in head):
                self.stats.name_file(f"{part.source.name}: {words}", Path(name).name)
        if first:
            reader.check([one.row for one in first])
            Filters(part.config.filters).check(list(dict.fromkeys(name for one in first for name in one.row)))
        for row, place, note in chain(first, rows):
            for raw in reader.read(row, place):
                raw = raw._replace(notes=(*raw.notes, note)) if note else raw
                question = raw.question
                held_out = part.source.held_out(row, question) if question is not None else None
                needed = held_out is None or self.open_split(held_out) is not None
                for one in each_answer(raw) if part.config.turns == "each" else (raw,):
                    yield _ReadRow(one, question, held_out, needed)

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
        """Raise UserError for the first split without any row."""
        require_rows(self.stats, self.parts, list(self.quotas))

    def gives_nothing(self, source: str) -> UserError:
        """Return the error for a source of which no row is kept, however many are read."""
        if len(self.parts) == 1:
            self.require_rows()
        why = ", ".join(f"{count:,} {reason}" for reason, count in self.stats.dropped.items())
        problem = f"gave no row to keep in {GIVE_UP_AFTER:,} rows (dropped of all sources: {why})"
        return UserError("data.mix", source, problem, "change its filters and columns, or see python cli.py preview")


def require_rows(stats: DataStats, parts: Sequence[Part], splits: Sequence[str]) -> None:
    """Raise UserError for the first of some splits without any row. The error has the reasons of the dropped rows."""
    names = ", ".join(part.source.name for part in parts)
    if not stats.read:
        raise UserError("data.source", names, "holds no rows", "give a source with rows in it")
    empty = next((split for split in splits if not stats.kept.get(split)), None)
    if empty is None:
        return
    why = ", ".join(f"{count} {reason}" for reason, count in stats.dropped.items()) or "no row belongs to it"
    problem = f"leaves no row for {empty} of {stats.read:,} read ({why})"
    if any(reason.startswith("data.filters") for reason in stats.dropped):
        fix = "loosen the filters, or look at python cli.py preview"
        if any("the column holds texts" in reason for reason in stats.dropped):
            fix = 'write the values of the filter as texts, like "0", or save the column as numbers'
        raise UserError("data.filters", None, f"{names} {problem}", fix)
    fix = "change data.heldout_ratio or the data"
    if OVERLONG in stats.dropped:
        fix = f"raise data.max_length ({parts[0].config.max_length}) or give other data"
    elif empty == "test" and stats.kept.get("val"):
        fix = f"lower data.val_rows, which took all {stats.kept['val']:,} held-out rows, or give more data"
    raise UserError("data.source", names, problem, fix)


_Row = tuple[RawExample, str | None, bool]  # with the question of its conversation, and whether it is needed


def _process(
    rows: Sequence[_Row], config: ProcessingConfig, encoder: Encoder, texts: bool, signatures: bool
) -> list[ProcessedExample]:
    """Return an example for each row; of a row that is not needed only the signature."""
    done = iter(process([raw for raw, _, needed in rows if needed], config, encoder, texts))
    examples = [next(done) if needed else ProcessedExample(raw.row_id) for raw, _, needed in rows]
    if signatures:
        for (_, question, _), example in zip(rows, examples, strict=True):
            if question is not None and len(question) <= LONGEST_TEXT:
                example.signature = signature(question)
    return examples


# In the worker processes

_encoder: Encoder


def _start_worker(encoder: Encoder) -> None:
    global _encoder
    _encoder = encoder
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # data.num_proc already sets the number of processes
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # on Ctrl-C the first process ends the workers
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this worker when the first process ends, also after a kill, which stops nobody else."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _process_in_worker(
    rows: list[_Row], config: ProcessingConfig, texts: bool, signatures: bool
) -> list[ProcessedExample]:
    return _process(rows, config, _encoder, texts, signatures)
