"""One pass over the sources, until every split has its rows: what is kept, where it goes, what is not and why.

Rows are read here, in order; what costs time (parsing, splitting, tokenizing) is done a few hundred rows at once, in
other processes where there are many. What comes out does not depend on how many processes did it.
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
from dataclasses import dataclass
from itertools import islice

from datamodules.prepare.stats import Report
from datamodules.rows.files import Row
from datamodules.rows.filters import Filters
from datamodules.rows.near_duplicates import DedupIndex
from datamodules.rows.sources import Source
from datamodules.tokens.process import OVERLONG, ProcessedExample, ProcessingConfig, process_rows
from datamodules.tokens.tokenizer import Encoder
from errors import UserError

AT_ONCE = 256  # rows examined together
ALONE = 16  # as many of those are done before other processes are worth their start
BARREN = 20_000  # rows of an endless source of which none is kept: none ever will be
NEAR = {False: "near duplicate of a held-out instruction", True: "near duplicate of a training instruction"}

Quotas = dict[str, int | None]  # rows wanted of "train", and of "val" and "test" one after the other; None for all


@dataclass(frozen=True)
class Part:
    """One of the sources that are mixed. Of every rows kept, each part gives by its weight; None takes all of all."""

    source: Source
    recipe: ProcessingConfig
    weight: float | None = None


@dataclass(frozen=True)
class _Read:
    position: int
    row: Row
    held_out: bool | None  # None where the row has no instruction to decide by
    asked: bool  # whether its side had room when it was read; if not, nobody will ask what becomes of it


class PassOverSources:
    """Iterating gives (outcome, name of the source, split or None if it is left out) of each row, and fills `report`.

    Rows of a side whose splits have all they want are read and passed over. With weights, the pass ends when a part has
    no more rows, for then they could not be held.
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
        self.report = Report(kept=dict.fromkeys(quotas, 0), tokens=dict.fromkeys(quotas, 0))
        self.border = DedupIndex(near_duplicate_threshold) if near_duplicate_threshold is not None else None
        self.pool: Executor | None = None  # made when there is enough to do

    def __iter__(self) -> Iterator[tuple[ProcessedExample, str, str | None]]:
        weighted = any(part.weight is not None for part in self.parts)
        weights = [part.weight or 1.0 for part in self.parts]
        kept = [0] * len(self.parts)
        with ExitStack() as self.stack:
            # What the libraries hold is not garbage: else it is gone through again for every few thousand new tuples
            gc.freeze()
            self.stack.callback(gc.unfreeze)
            streams = [self.examined(part) for part in self.parts]
            open_parts = set(range(len(self.parts)))
            while open_parts and self.wanted_any():
                turn = min(open_parts, key=lambda k: (kept[k] / weights[k], k))
                found = next(streams[turn], None)
                if found is None:
                    if weighted:
                        break
                    open_parts.remove(turn)
                    continue
                read, outcome = found
                self.report.read += 1
                if outcome is None or (read.held_out is not None and self.wanted(read.held_out) is None):
                    continue  # that side is full
                source = self.parts[turn].source
                split = self.place(read, outcome, source.name)
                kept[turn] += split is not None
                if source.endless and read.position >= BARREN and not kept[turn]:
                    self.require_rows()
                yield outcome, source.name, split

    def place(self, read: _Read, outcome: ProcessedExample, source: str) -> str | None:
        """The split that a row goes to, or None; either way it is counted."""
        if outcome.length:
            self.report.measure(outcome)
        held_out = bool(read.held_out)
        if outcome.reason is None and self.border is not None and outcome.signature is not None:
            if self.border.crosses(outcome.signature, held_out):
                outcome.reason = NEAR[held_out]
            else:
                self.border.add(outcome.signature, held_out)
        if outcome.reason is not None:
            self.report.drop(outcome.reason, outcome.row_id)
            return None
        split = self.wanted(held_out)
        assert split is not None
        self.report.keep(outcome, split, source)
        return split

    def wanted(self, held_out: bool) -> str | None:
        """The split that the next row of this side goes to, if it is still wanted."""
        for split, rows in self.quotas.items():
            if (split != "train") == held_out and (rows is None or self.report.kept[split] < rows):
                return split
        return None

    def wanted_any(self) -> bool:
        return self.wanted(True) is not None or self.wanted(False) is not None

    def examined(self, part: Part) -> Iterator[tuple[_Read, ProcessedExample | None]]:
        """Every row of a part, with its outcome if that is asked for."""
        compare = self.border is not None and part.source.comparable
        rows = self.read(part)
        waiting: deque[tuple[list[_Read], Future[list[ProcessedExample]]]] = deque()
        done = 0
        while (batch := list(islice(rows, AT_ONCE))) or waiting:
            if batch:
                work = [(read.position, read.row) for read in batch if read.asked]
                if self.num_proc == 1 or done < ALONE:
                    yield from _paired(batch, process_rows(work, part.recipe, self.encoder, self.texts, compare))
                    done += 1
                    continue
                job = self.processes().submit(_examine, work, part.recipe, self.texts, compare)
                waiting.append((batch, job))
            if len(waiting) > 2 * self.num_proc or not batch:
                batch, job = waiting.popleft()
                try:
                    outcomes = job.result()
                except BrokenProcessPool as error:
                    problem = "processes were one too many: one was killed, most likely for lack of memory"
                    raise UserError("data.num_proc", self.num_proc, problem, "give a smaller number") from error
                yield from _paired(batch, outcomes)

    def read(self, part: Part) -> Iterator[_Read]:
        """The rows of a part with the side that each is on. Raises UserError for columns that are not there."""
        columns = part.recipe.columns
        for position, row in enumerate(part.source.rows()):
            if position == 0:
                columns.check(list(row))
                Filters(part.recipe.where).check(list(row))
            instruction, _ = columns.texts(row)
            held_out = part.source.held_out(row, instruction) if isinstance(instruction, str) else None
            yield _Read(position, row, held_out, held_out is None or self.wanted(held_out) is not None)

    def processes(self) -> Executor:
        if self.pool is None:
            # Not forked: the threads of the tokenizer and of torch do not survive that
            context = multiprocessing.get_context("spawn")
            pool = ProcessPoolExecutor(self.num_proc, context, _start, (self.encoder,))
            self.stack.callback(pool.shutdown, wait=True, cancel_futures=True)
            self.pool = pool
        return self.pool

    def require_rows(self) -> None:
        """Raises UserError for a split without any row, with what became of those that were read."""
        report, names = self.report, ", ".join(part.source.name for part in self.parts)
        if not report.read:
            raise UserError("data.source", names, "holds no rows", "give a source with rows in it")
        empty = next((split for split, rows in report.kept.items() if not rows), None)
        if empty is None:
            return
        why = ", ".join(f"{count} {reason}" for reason, count in report.dropped.items()) or "none was on that side"
        problem = f"leaves no row for {empty} of {report.read:,} read ({why})"
        if any(reason.startswith("where: ") for reason in report.dropped):
            raise UserError("data.where", None, f"{names} {problem}", "ask for less, or look at python cli.py preview")
        fix = "change data.heldout_ratio or the data"
        if OVERLONG in report.dropped:
            fix = f"raise data.max_length ({self.parts[0].recipe.max_length}) or give other data"
        raise UserError("data.source", names, problem, fix)


def _paired(batch: list[_Read], outcomes: list[ProcessedExample]) -> Iterator[tuple[_Read, ProcessedExample | None]]:
    following = iter(outcomes)
    for read in batch:
        yield read, next(following) if read.asked else None


# In the other processes

_encoder: Encoder


def _start(encoder: Encoder) -> None:
    global _encoder
    _encoder = encoder
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # there are as many processes as were asked for
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the first process, which ends these


def _examine(
    work: list[tuple[int, Row]], recipe: ProcessingConfig, texts: bool, compare: bool
) -> list[ProcessedExample]:
    return process_rows(work, recipe, _encoder, texts, compare)
