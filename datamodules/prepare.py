"""Rows -> token ids and roles on disk, once: as many as asked for that survive, and a count of what did not and why.

A prepared folder is named by a fingerprint of all that decides its content. It is written beside its place and moved
there whole, so ranks and runs that prepare at the same time are safe and a broken-off one leaves nothing behind.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path

from datamodules import equations, render, sources, steps, thoughts, token_rows, tokenize
from datamodules.render import Role
from datamodules.sources import Row, Source
from datamodules.thoughts import Example, Malformed
from datamodules.token_rows import TokenRowsWriter
from datamodules.tokenize import ThinkTokenizer
from errors import UserError

AT_ONCE = 512  # rows tokenized together
LENGTHS = (512, 1024, 2048, 4096, 8192)
TOO_LONG = "longer than data.max_length"
CODE = (equations, render, sources, steps, thoughts, token_rows, tokenize)  # changes here make old folders stale

Quotas = dict[str, int | None]  # rows wanted of "train", and of "val" and "test" one after the other; None for all


@dataclass(frozen=True)
class Recipe:
    """What decides the tokens of a row, beside the row and the tokenizer."""

    template: render.Template
    think: render.Think
    max_length: int
    columns: thoughts.Columns


@dataclass
class Report:
    """What became of the rows that were read, all in rows unless a name says tokens."""

    read: int = 0
    kept: dict[str, int] = field(default_factory=dict)
    tokens: dict[str, int] = field(default_factory=dict)
    supervised_tokens: dict[str, int] = field(default_factory=dict)
    repaired: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    tokenized: int = 0
    within: dict[str, int] = field(default_factory=dict)  # of those tokenized, by length in tokens

    def lines(self, max_length: int) -> list[str]:
        """What a user should know before training on it."""
        kept = ", ".join(f"{rows:,} {split}" for split, rows in self.kept.items())
        left_out = [f"{count:,} {reason}" for reason, count in sorted(self.dropped.items(), key=lambda item: -item[1])]
        lines = [f"data: {self.read:,} rows read, kept {kept}; left out: {', '.join(left_out) or 'none'}"]
        if self.repaired:
            lines.append(f"data: {', '.join(f'{count:,} {what}' for what, count in self.repaired.items())}")
        if self.dropped.get(TOO_LONG):
            shares = [f"{100 * self.within.get(str(n), 0) / self.tokenized:.0f} % in {n:,}" for n in LENGTHS]
            lines.append(f"data: whole rows that fit (data.max_length is {max_length:,} tokens): {', '.join(shares)}")
        return lines


def fingerprint(source: Source, tokenizer: ThinkTokenizer, recipe: Recipe, quotas: Quotas) -> str:
    """Equal exactly when the prepared rows would be."""
    code = b"".join(Path(str(file)).read_bytes() for file in (__file__, *(module.__file__ for module in CODE)))
    key = [source.identity, tokenizer.fingerprint, asdict(recipe), quotas, hashlib.sha256(code).hexdigest()]
    return hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]


def prepare(
    source: Source, tokenizer: ThinkTokenizer, recipe: Recipe, quotas: Quotas, cache_dir: Path
) -> tuple[Path, Report]:
    """The folder with `{split}.arrow` for each quota, and its report; made here unless it is there already.

    Raises UserError if the source holds no row, none of those wanted survives, or the folder cannot be written.
    """
    folder = cache_dir / fingerprint(source, tokenizer, recipe, quotas)
    if not (folder / "report.json").is_file():
        try:
            cache_dir.mkdir(parents=True, exist_ok=True)
            scratch = Path(tempfile.mkdtemp(prefix=".preparing-", dir=cache_dir))
        except OSError as error:
            problem = f"cannot be written ({error.strerror})"
            raise UserError("data.cache_dir", cache_dir, problem, "give a folder that can") from error
        try:
            report = _Preparation(source, tokenizer, recipe, quotas, scratch).run()
            (scratch / "report.json").write_text(json.dumps(asdict(report), indent=1))
            try:
                os.rename(scratch, folder)
            except OSError:  # another run was first, with the same content
                if not (folder / "report.json").is_file():
                    raise
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return folder, Report(**json.loads((folder / "report.json").read_text()))


class _Preparation:
    """One pass over the source, which ends when every split has its rows."""

    def __init__(self, source: Source, tokenizer: ThinkTokenizer, recipe: Recipe, quotas: Quotas, folder: Path) -> None:
        self.source, self.tokenizer, self.recipe, self.quotas = source, tokenizer, recipe, quotas
        self.writers = {split: TokenRowsWriter(folder / f"{split}.arrow") for split in quotas}
        self.kept, self.tokens, self.supervised = (dict.fromkeys(quotas, 0) for _ in range(3))
        self.dropped, self.repaired, self.within = Counter[str](), Counter[str](), Counter[str]()
        self.read = self.tokenized = 0

    def run(self) -> Report:
        from tqdm import tqdm

        known = [rows for rows in self.quotas.values() if rows is not None]
        total = sum(known) if len(known) == len(self.quotas) else None
        stream = self.examples(self.source.rows())
        with tqdm(total=total, desc="preparing", unit=" rows", disable=None) as bar:
            while self.wanted_any() and (batch := list(islice(stream, AT_ONCE))):
                before = sum(self.kept.values())
                self.take(batch)
                bar.update(sum(self.kept.values()) - before)
        for writer in self.writers.values():
            writer.close()
        if not all(self.kept.values()):
            self.refuse()
        return Report(
            self.read, self.kept, self.tokens, self.supervised, dict(self.repaired), dict(self.dropped),
            self.tokenized, dict(self.within),
        )  # fmt: skip

    def wanted(self, held_out: bool) -> str | None:
        """The split that the next row of this side goes to, if it is still wanted."""
        for split, rows in self.quotas.items():
            if (split != "train") == held_out and (rows is None or self.kept[split] < rows):
                return split
        return None

    def wanted_any(self) -> bool:
        return self.wanted(True) is not None or self.wanted(False) is not None

    def examples(self, rows: Iterator[Row]) -> Iterator[tuple[Example, bool]]:
        """Those rows that can be understood and are wanted, and whether each is held out."""
        for position, row in enumerate(rows):
            if position == 0:
                self.recipe.columns.check(list(row))
            self.read += 1
            try:
                example = thoughts.example(row, self.recipe.columns, position)
            except Malformed as error:
                self.dropped[str(error)] += 1
                continue
            held_out = self.source.held_out(row, example.instruction)
            if self.wanted(held_out):
                yield example, held_out

    def take(self, batch: list[tuple[Example, bool]]) -> None:
        """Tokenizes and writes what of a batch is not too long and still wanted."""
        segments = [render.render(example, self.recipe.template, self.recipe.think) for example, _ in batch]
        for (example, held_out), (ids, roles) in zip(batch, self.tokenizer.encode_rows(segments), strict=True):
            split = self.wanted(held_out)
            if split is None:
                continue
            self.tokenized += 1
            self.within.update(str(length) for length in LENGTHS if len(ids) <= length)
            if len(ids) > self.recipe.max_length:
                self.dropped[TOO_LONG] += 1
                continue
            supervised = int((roles != Role.PROMPT).sum())
            self.writers[split].add(example.row_id, example.group, supervised, ids, roles)
            self.repaired.update(example.repairs)
            self.kept[split] += 1
            self.tokens[split] += len(ids)
            self.supervised[split] += supervised

    def refuse(self) -> None:
        """Raises UserError for a split without any row, with what became of those that were read."""
        if not self.read:
            raise UserError("data.source", self.source.name, "holds no rows", "give a source with rows in it")
        empty = next(split for split, rows in self.kept.items() if not rows)
        why = ", ".join(f"{count} {reason}" for reason, count in self.dropped.items()) or "none was on that side"
        fix = "change data.held_out or the data"
        if TOO_LONG in self.dropped:
            fix = f"raise data.max_length ({self.recipe.max_length}) or give other data"
        problem = f"leaves no row for {empty} of {self.read:,} read ({why})"
        raise UserError("data.source", self.source.name, problem, fix)
