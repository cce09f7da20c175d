"""The rows of every arm: its own training rows, and for all the same validation rows and test questions.

The project's own preparation says once which rows are held out and how long each row is. A question is held out with
all its rows. Short held-out rows are for validation, because an arm may drop or cut long ones; the other held-out
questions are the test. The reference answer of a question is the one that most of its rows give, by the judge; at a
tie the first. Rows that are too long to train on vote as well.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from disk import write_file
from errors import UserError
from lightning_modules.evaluation.votes import same_answer, vote

Command = Callable[[Sequence[str], Path], None]  # runs cli.py with these arguments and writes its output to that file

LONGEST = 1024  # tokens of the longest row of any arm, with a think block for each sentence
VAL_LONGEST = 512  # of the validation rows: the shortest data.max_length of any arm
VAL_ROWS = 24
HELD_OUT = 0.4  # ratio of the questions


@dataclass(frozen=True)
class Choice:
    """Which of the training rows an arm trains on."""

    longest: int = 768  # tokens
    shortest: int = 0  # tokens
    number: int | None = None  # of rows, the first ones; None: all
    cut: int | None = None  # data.max_length of the arm; rows above it are treated as data.overlong says
    long_after: int | None = None  # of each five rows four have at most this many tokens

    @property
    def slug(self) -> str:
        parts = [f"{self.shortest}-{self.longest}", *([f"mix{self.long_after}"] if self.long_after else [])]
        return "-".join([*parts, *([f"first{self.number}"] if self.number else [])])


@dataclass(frozen=True)
class Pool:
    """All rows as text lines, and the places of those that are used."""

    lines: Sequence[str]
    tokens: Sequence[int]  # of each row
    train: Sequence[int]
    val: Sequence[int]
    test: Sequence[dict[str, str]]  # the questions, each with its reference answer

    def choose(self, choice: Choice) -> list[int]:
        fits = [k for k in self.train if choice.shortest <= self.tokens[k] <= choice.longest]
        if choice.long_after is not None:
            short = [k for k in fits if self.tokens[k] <= choice.long_after]
            long = [k for k in fits if self.tokens[k] > choice.long_after]
            fits = sorted(short[: 4 * len(long)] + long[: len(short) // 4])
        if choice.number is not None and len(fits) < choice.number:
            raise UserError("--rows", None, f"has {len(fits)} rows for {choice}", "give more rows")
        return fits[: choice.number]

    def write(self, choice: Choice, folder: Path) -> Path:
        """Write the rows of an arm and the validation rows, unless the file exists, and return its path."""
        path = folder / f"{choice.slug}.jsonl"
        if not path.exists():
            places = sorted([*self.choose(choice), *self.val])
            write_file(path, "".join(self.lines[k] + "\n" for k in places))
        return path


def read_pool(files: Sequence[Path], base: str, out: Path, command: Command) -> Pool:
    """Split all rows. `questions.jsonl` in the folder gets the test questions."""
    if not files:
        fix = "give --rows FILE.jsonl, with columns instruction and response, or set THINKWRIGHT_REAL_ROWS"
        raise UserError("--rows", None, "is missing, and the project contains no real rows", fix)
    for file in files:
        if not file.is_file():
            raise UserError("--rows", file, "is not a file", "give .jsonl files with instruction and response")
    lines = [line for file in files for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    everything, seen = out / "rows" / "all.jsonl", out / "rows" / "seen.jsonl"
    if not everything.exists():
        write_file(everything, "".join(line + "\n" for line in lines))
    if not seen.exists():
        settings = {
            "model.name": base, "model.revision": "null", "data.source": everything, "data.revision": "null",
            "data.order": "file",  # so that "row" is the number of a line
            "data.max_length": LONGEST, "data.heldout_ratio": HELD_OUT, "data.train_rows": "null",
            "data.val_rows": "null", "data.cache_dir": out / "prepared",
        }  # fmt: skip
        config = Path("configs") / "smollm2.yaml"
        command(["preview", "--config", str(config), *as_args(settings), "--rows", "0", "--jsonl", str(seen)],
                out / "logs" / "preview.log")  # fmt: skip
    found = [json.loads(line) for line in seen.read_text(encoding="utf-8").splitlines()]
    pool = split(lines, found)
    write_file(out / "questions.jsonl", "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in pool.test))
    return pool


def split(lines: Sequence[str], seen: Sequence[dict[str, Any]]) -> Pool:
    """Return the pool of these rows; `seen` are the lines of `preview --jsonl`."""
    tokens = [0] * len(lines)
    used: dict[str, list[int]] = {"train": [], "held out": []}
    for one in seen:
        if one["split"] is not None:
            tokens[one["row"]] = len(one["input_ids"])
            used["train" if one["split"] == "train" else "held out"].append(one["row"])
    asked = [_asked(line) for line in lines]
    short = [k for k in used["held out"] if tokens[k] <= VAL_LONGEST]
    val = short[:VAL_ROWS]
    known = {asked[k] for k in val}
    test = dict.fromkeys(asked[k] for k in used["held out"] if asked[k] not in known)
    asked_rows = ([line for line, q in zip(lines, asked, strict=True) if q == question] for question in test)
    questions = [{"id": str(n), **one} for n, one in enumerate(map(_question, asked_rows)) if one["answer"]]
    if not used["train"] or len(val) < VAL_ROWS or not questions:
        problem = f"have {len(used['train'])} training rows, {len(val)} short held-out rows, {len(questions)} questions"
        raise UserError("--rows", None, problem, f"give more rows; {VAL_ROWS} short held-out rows are needed")
    return Pool(lines, tokens, used["train"], val, questions)


def _asked(line: str) -> str:
    return " ".join(json.loads(line)["instruction"].split())


def _question(lines: Sequence[str]) -> dict[str, str]:
    """Return the question of some rows, with the answer that most of them give."""
    rows = [json.loads(line) for line in lines]
    answers = [row["response"].rpartition("</think>")[2].strip() or None for row in rows]
    winner = vote(answers, same_answer).place
    return {"instruction": rows[0]["instruction"], "answer": (answers[winner] if winner is not None else None) or ""}


def as_args(settings: dict[str, object]) -> list[str]:
    return [text for key, value in settings.items() for text in (f"--{key}", str(value))]
