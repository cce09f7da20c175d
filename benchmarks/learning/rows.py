"""The rows of each seed: the same validation rows for every recipe, and short or long training rows.

A recipe that drops long rows would also drop them from its validation, so losses would not be comparable. Therefore
`preview` computes once per seed the length and the split of each row, and this module makes two files of rows from it.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.learning.recipes import LITERAL, Scale
from errors import UserError

Command = Callable[[Sequence[str], Path], None]  # runs cli.py with these arguments and writes its output to that file


def collect(files: Sequence[Path], folder: Path) -> Path:
    """Return one file with all rows. Raise UserError if there is no row file."""
    if not files:
        fix = "give --rows FILE.jsonl, with columns instruction and response, or set THINKWRIGHT_REAL_ROWS"
        raise UserError("--rows", None, "is missing, and the project contains no real rows", fix)
    for file in files:
        if not file.is_file():
            raise UserError("--rows", file, "is not a file", "give .jsonl files with instruction and response")
    path = folder / "all.jsonl"
    if not path.exists():
        lines = [line for file in files for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
        _write(path, lines)
    return path


def split_rows(everything: Path, base: str, seed: int, scale: Scale, cache: Path, command: Command) -> dict[str, int]:
    """Make `short-SEED.jsonl` and `long-SEED.jsonl` beside `everything`, unless they exist.

    Return the number of training rows in each, and of validation rows.
    """
    folder = everything.parent
    seen = folder / f"seen-{seed}.jsonl"
    if not seen.exists():
        settings = {
            "model.name": base, "model.revision": "null", "data.source": everything, "data.revision": "null",
            "data.order": "file",  # so that "row" is the number of a line
            "data.seed": seed, "data.max_length": scale.long, "data.train_rows": "null",
            "data.val_rows": scale.val_rows, "data.cache_dir": cache,
        }  # fmt: skip
        command(["preview", "--config", str(LITERAL), *as_args(settings), "--rows", "0", "--jsonl", str(seen)],
                folder / f"seen-{seed}.log")  # fmt: skip
    lines = everything.read_text(encoding="utf-8").splitlines()
    kept: dict[str, list[str]] = {"short": [], "long": []}
    counts = {"short": 0, "long": 0, "val": 0}
    for found in map(json.loads, seen.read_text(encoding="utf-8").splitlines()):
        if found["split"] is None:
            continue
        sets = ["short", "long"]
        if found["split"] == "train" and len(found["input_ids"]) > scale.short:
            sets = ["long"]
        for name in sets:
            kept[name].append(lines[found["row"]])
            counts[name] += found["split"] == "train"
        counts["val"] += found["split"] == "val"
    for name in ("short", "long", "val"):
        if not counts[name]:
            fix = "give more rows, or greater --short and --long"
            raise UserError("--rows", None, f"has no rows for {name} with seed {seed}", fix)
    for name, chosen in kept.items():
        if not (path := folder / f"{name}-{seed}.jsonl").exists():
            _write(path, chosen)
    return counts


def as_args(settings: dict[str, object]) -> list[str]:
    return [text for key, value in settings.items() for text in (f"--{key}", str(value))]


def _write(path: Path, lines: Sequence[str]) -> None:
    """Write the file completely or not at all."""
    scratch = path.with_suffix(".tmp")
    scratch.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    scratch.rename(path)
