"""Does the model learn, and which settings matter? Train the literal recipe, the strong recipe, and steps between them.

    python -m benchmarks.learning --rows FILE.jsonl                      the embedded model, three seeds
    python -m benchmarks.learning --rows FILE.jsonl --base FOLDER_OR_ID  any model, with the recipe's lengths

Every run is `cli.py fit`, on the GPU if there is one. After an interruption the same command continues. Finished runs
are not repeated, and no result is overwritten.
"""

import argparse
import dataclasses
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from benchmarks.learning.recipes import EMBEDDED, Recipe, Scale, default_scale, recipes
from benchmarks.learning.report import conclusions, curve_table, knob_table, write
from benchmarks.learning.rows import collect, split_rows
from benchmarks.learning.runs import cpu_seconds, finished, fit_args, read_run, run_cli, train
from benchmarks.real_inputs import row_files
from errors import UserError
from hub import local_folder


def parse(args: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.learning", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=Path, nargs="+", help="JSON lines with instruction and response")
    parser.add_argument("--base", default=EMBEDDED, help="folder or hub id of the base model")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds, from 1; more can be added later")
    parser.add_argument(
        "--recipes", nargs="+", metavar="NAME", help="some recipes, such as literal strong; by default all"
    )
    parser.add_argument("--out", type=Path, help="folder of runs and results; by default runs/learning-BASE")
    for field in dataclasses.fields(Scale):
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=field.type, help=field.metadata["help"])
    return parser.parse_args(args)


def benchmark(given: argparse.Namespace) -> None:
    base = str(local_folder(given.base) or given.base)
    scale = default_scale(base)
    scale = dataclasses.replace(scale, **{k: v for k in vars(scale) if (v := getattr(given, k)) is not None})
    scale.check()
    if given.seeds < 1:
        raise UserError("--seeds", given.seeds, "is below 1", "give 1 or more")
    chosen = choose(recipes(scale.rate_factor), given.recipes)
    out = (given.out or Path("runs") / f"learning-{Path(base).name}").resolve()
    everything = prepare_folder(out, given.rows or row_files(), base, scale)
    seeds = range(1, given.seeds + 1)
    counts = {seed: split_rows(everything, base, seed, scale, out / "prepared", run_cli) for seed in seeds}
    new = train_all(out, chosen, seeds, base, scale)
    results = {
        recipe.name: {seed: read_run(run) for seed in seeds if (run := finished(out, recipe, seed))}
        for recipe in chosen
    }
    for seed in seeds:
        if len({results[recipe.name][seed]["val_rows"] for recipe in chosen}) > 1:
            raise UserError("--out", out, "holds runs with other validation rows", "give a new folder")
    report(
        out,
        results,
        new,
        {"base": base, "scale": dataclasses.asdict(scale), "rows": counts, "cpu_seconds": cpu_seconds(out)},
    )


def choose(known: list[Recipe], names: list[str] | None) -> list[Recipe]:
    unknown = sorted(set(names or []) - {recipe.name for recipe in known})
    if unknown:
        fix = f"choose from {', '.join(repr(recipe.name) for recipe in known)}"
        raise UserError("--recipes", unknown[0], "is not a recipe", fix)
    return [recipe for recipe in known if not names or recipe.name in names]


def prepare_folder(out: Path, files: Sequence[Path], base: str, scale: Scale) -> Path:
    """Return the file of all rows. Make the folder; raise UserError if it belongs to another benchmark."""
    known = {"base": base, "files": [str(file.resolve()) for file in files], **dataclasses.asdict(scale)}
    settings = out / "settings.json"
    if settings.exists():
        before = json.loads(settings.read_text(encoding="utf-8"))
        for key, value in known.items():
            if before.get(key) != value:
                problem = f"was made with {key} {before.get(key)}, not {value}"
                raise UserError("--out", out, problem, "give a new folder")
    elif out.exists() and any(out.iterdir()):
        raise UserError("--out", out, "is not empty and does not belong to this benchmark", "give a new folder")
    for name in ("rows", "logs"):
        (out / name).mkdir(parents=True, exist_ok=True)
    everything = collect(files, out / "rows")
    if not settings.exists():
        settings.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    return everything


def train_all(out: Path, chosen: Sequence[Recipe], seeds: Sequence[int], base: str, scale: Scale) -> int:
    """Run all missing runs, seed by seed, so that a stopped benchmark has complete comparisons. Return their number."""
    missing = [(seed, recipe) for seed in seeds for recipe in chosen if finished(out, recipe, seed) is None]
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("", total=len(missing) * scale.steps)
        for done, (seed, recipe) in enumerate(missing):
            title = f"run {done + 1} of {len(missing)}: {recipe.name}, seed {seed}, step"

            def progress(step: int, done: int = done, title: str = title) -> None:
                bar.update(task, completed=done * scale.steps + step, description=f"{title} {step} of {scale.steps}")

            progress(0)
            run = train(
                fit_args(recipe, base, seed, scale, out, torch.cuda.is_available()), out, recipe, seed, progress
            )
            progress(scale.steps)
            after = run.read_summary()
            console.print(
                f"{recipe.name}, seed {seed}: loss {after['before']['loss']:.3f} -> {after['after']['loss']:.3f}"
            )
    return len(missing)


def report(out: Path, results: Any, new: int, known: dict[str, Any]) -> None:
    rates = [name for name in ("literal", "strong", *results) if name.split(" x")[0] in ("literal", "strong")]
    beside = [name for name in dict.fromkeys(rates) if name in results]
    tables = [*([curve_table({n: {s: r["curve"] for s, r in results[n].items()} for n in beside}, beside)] if beside
                else []), knob_table(results)]  # fmt: skip
    lines = conclusions(results)
    for table in tables:
        table.show()
    for line in lines:
        print(line)
    if new or not list(out.glob("results-*.json")):
        known = {"command": shlex.join(["python", "-m", "benchmarks.learning", *sys.argv[1:]]), **known}
        print(f"written to {write(out, results, tables, lines, known)} and .md", file=sys.stderr)


def main(args: Sequence[str] | None = None) -> int:
    """Return the exit code: 0, or 2 after a UserError."""
    try:
        benchmark(parse(args))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
