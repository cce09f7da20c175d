"""Training runs: `cli.py fit`, each in its own process, never twice.

The processes are forked from a process that has imported the libraries. That saves about ten seconds per run.
"""

import csv
import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

from benchmarks.learning.recipes import CONFIGS, Recipe, Scale, is_embedded
from benchmarks.learning.rows import as_args
from errors import INTERRUPTED, TERMINATED, UserError
from hub import CHECKOUT
from lightning_modules.run.folder import Run, find_runs

HEAVY = ["cli", "commands.fit", "commands.preview", "transformers.models.qwen2.modeling_qwen2", "peft"]
CPU = "CPU seconds: "
Figures = dict[str, float]


def in_cli(args: list[str], log: str) -> None:
    """Run `python cli.py` with these arguments in this process, and append its output to a file.

    The process has its own session, so only `run_cli` passes a Ctrl-C on. A second one would end it before it saves.
    """
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.chdir(CHECKOUT)
    with open(log, "a", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    from cli import main

    code = main(args)
    print(f"{CPU}{time.process_time():.1f}", flush=True)
    sys.exit(code)


def run_cli(args: Sequence[str], log: Path, watch: Callable[[], None] = lambda: None) -> None:
    """Run a command to its end and call `watch` meanwhile. Raise UserError if it fails.

    Ctrl-C and SIGTERM are passed on to the command, which saves a checkpoint.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(HEAVY)
    process = context.Process(target=in_cli, args=(list(args), str(log)))
    signals: list[int] = []
    stops = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in stops}
    forkserver.ensure_running()  # it inherits SIG_IGN: a signal to the whole group must not end it before its children
    try:
        for number in stops:
            signal.signal(number, lambda number, frame: signals.append(number))
        process.start()
        passed_on = 0
        while process.is_alive():
            process.join(0.5)
            if len(signals) > passed_on:  # the command stops at once after a second signal
                process.terminate()
                passed_on += 1
            watch()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if signals:
        print("stopped; the same command continues", file=sys.stderr)
        sys.exit(TERMINATED if signals[0] == signal.SIGTERM else INTERRUPTED)
    if process.exitcode:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        said = [line for line in lines if line.strip() and not line.startswith(CPU)]
        problem = f"ended with {process.exitcode}: {said[-1] if said else ''}"
        raise UserError(f"cli.py {args[0]}", None, problem.rstrip("."), f"see {log}; the same command continues")


def fit_args(recipe: Recipe, base: str, seed: int, scale: Scale, out: Path, gpu: bool) -> list[str]:
    """Return the command line of a run, without its checkpoint."""
    hardware = CONFIGS / "hardware" / ("one_gpu.yaml" if gpu else "cpu.yaml")
    first, *others = recipe.configs
    settings = {
        **recipe.settings,
        "seed_everything": seed,
        "run.root": out / "runs",
        "run.name": f"{recipe.slug}-{seed}",
        "model.name": base,
        "model.revision": "null",
        "model.gradient_checkpointing": recipe.long and not is_embedded(base),
        "model.evaluation.rows": scale.answered,
        "model.evaluation.decoding.max_new_tokens": scale.max_new_tokens,
        "data.source": out / "rows" / f"{'long' if recipe.long else 'short'}-{seed}.jsonl",
        "data.revision": "null",
        "data.order": "file",  # the same validation rows for short and long training rows
        "data.seed": seed,
        "data.max_length": scale.long,  # for the validation rows; the training rows are chosen by their length
        "data.near_duplicate_threshold": "null",  # already dropped
        "data.train_rows": "null",
        "data.val_rows": scale.val_rows,
        "data.num_workers": 0,
        "data.num_proc": 1,
        "data.cache_dir": out / "prepared",
        "trainer.accumulate_grad_batches": scale.accumulate,
        "trainer.max_epochs": -1,
        "trainer.max_steps": scale.steps,
        "trainer.check_val_every_n_epoch": "null",
        "trainer.val_check_interval": scale.steps // scale.validations * scale.accumulate,
        "trainer.log_every_n_steps": max(1, scale.steps // 20),
        "trainer.enable_progress_bar": False,
    }
    configs = [text for config in (first, hardware, *others) for text in ("--config", str(config))]
    return ["fit", *configs, *as_args(settings)]


def finished(out: Path, recipe: Recipe, seed: int) -> Run | None:
    return next((run for run in _runs(out, recipe, seed) if "after" in run.read_summary()), None)


def train(args: list[str], out: Path, recipe: Recipe, seed: int, progress: Callable[[int], None]) -> Run:
    """Return the finished run of a recipe and seed: a new run, or a stopped run continued from its checkpoint."""
    stopped = next((run for run in _runs(out, recipe, seed) if run.last.is_file()), None)
    more = ["--ckpt_path", str(stopped.last)] if stopped else []
    started = time.time()

    def watch() -> None:
        newest = next(_runs(out, recipe, seed), None)
        if newest is not None and newest.folder.stat().st_mtime >= started - 1:
            progress(max(read_curve(newest.folder / "metrics.csv", "lr"), default=0))

    run_cli([*args, *more], out / "logs" / f"{recipe.slug}-{seed}.log", watch)
    run = finished(out, recipe, seed)
    assert run is not None, "a fit without error has a summary"
    return run


def _runs(out: Path, recipe: Recipe, seed: int) -> Any:
    return find_runs(str(out / "runs"), f"{recipe.slug}-{seed}")


def read_curve(metrics: Path, having: str = "val/loss") -> dict[int, Figures]:
    """Return optimizer step -> figures, from the lines of metrics.csv that have the figure `having`.

    A resumed run may have two lines for one step; the last one counts.
    """
    if not metrics.is_file():
        return {}
    with metrics.open(newline="", encoding="utf-8") as file:
        lines = [line for line in csv.DictReader(file) if line.get(having)]
    return {
        int(line["step"]): {name.removeprefix("val/"): float(value) for name, value in line.items() if value}
        for line in lines
    }


def cpu_seconds(out: Path) -> float:
    """Return the CPU seconds of all commands of this folder, stopped ones included."""
    lines = [line for log in out.glob("*/*.log") for line in log.read_text(errors="replace").splitlines()]
    return sum(float(line.removeprefix(CPU)) for line in lines if line.startswith(CPU))


def read_run(run: Run) -> Mapping[str, Any]:
    """Return the part of a finished run that the report needs."""
    summary = run.read_summary()
    return {
        "folder": str(run.folder),
        "curve": read_curve(run.folder / "metrics.csv"),
        "val_rows": summary["data"]["digests"]["val"],
        "environment": json.loads((run.folder / "environment.json").read_text(encoding="utf-8")),
    }
