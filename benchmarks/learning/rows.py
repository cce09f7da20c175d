"""The rows of each seed: the same validation rows for every recipe, training rows short or long.

A recipe that leaves long rows out would leave them out of its validation, too, and its loss would be of other rows. So
`preview` says, once a seed, how long each row is and on which side it falls, and two files are made of that.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.learning.recipes import LITERAL, Scale
from errors import UserError

Command = Callable[[Sequence[str], Path], None]  # runs the program with these arguments, its output into that file


def collect(files: Sequence[Path], folder: Path) -> Path:
    """All rows in one file. Raises UserError where there is none."""
    if not files:
        fix = "give --rows FILE.jsonl, with columns instruction and response"
        raise UserError("--rows", None, "the real rows (../shared/real/*.jsonl) are not part of the project", fix)
    for file in files:
        if not file.is_file():
            raise UserError("--rows", file, "is not a file", "give .jsonl files with instruction and response")
    path = folder / "all.jsonl"
    if not path.exists():
        lines = [line for file in files for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
        _write(path, lines)
    return path


def split_rows(everything: Path, base: str, seed: int, scale: Scale, cache: Path, command: Command) -> dict[str, int]:
    """Makes `short-SEED.jsonl` and `long-SEED.jsonl` beside `everything`, unless they are there; returns how many rows
    each trains on, and are for validation."""
    folder = everything.parent
    seen = folder / f"seen-{seed}.jsonl"
    if not seen.exists():
        settings = {
            "model.name": base, "model.revision": "null", "data.source": everything, "data.revision": "null",
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
            raise UserError("--rows", None, f"seed {seed} leaves no rows for {name}", fix)
    for name, chosen in kept.items():
        if not (path := folder / f"{name}-{seed}.jsonl").exists():
            _write(path, chosen)
    return counts


def as_args(settings: dict[str, object]) -> list[str]:
    return [text for key, value in settings.items() for text in (f"--{key}", str(value))]


def _write(path: Path, lines: Sequence[str]) -> None:
    """Whole or not at all."""
    scratch = path.with_suffix(".tmp")
    scratch.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    scratch.rename(path)
