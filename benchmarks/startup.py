"""Measure how long a user waits: for the help, for a refusal, for the first optimizer step, for a checkpoint.

    python -m benchmarks.startup [--rows 250000] [--repeat 3]

First step: `cli.py fit` on the embedded model with built-in rows that are already prepared, from the start of the
command to the first line of metrics.csv, without the evaluation before training (trainer.limit_val_batches 0). The time
to load the embedded model is negligible. The checkpoint has 40 MB, as one of Qwen1.5-1.8B at rank 8 with optimizer.
CPU seconds (user and system) are those of the whole command. On a machine with other work they say more than the clock.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

AT_ONCE = (["--help"], ["--version"], ["fti"], ["fit", "--config", "configs/thnik.yaml"])
DEMO = ["--config", "configs/demo.yaml"]
HELP = (["fit", "--help"], ["estimate", "--help"], ["preview", "--help"], ["generate", "--help"])
REFUSED = (
    ["fit", *DEMO, "--data.batchsize", "3"], ["fit", *DEMO, "--data.batch_size", "0"],
    ["fit", *DEMO, "--data.source", "rows.jsnl"], ["generate", "--prompt", "Hi", "--run", "nowhere"],
)  # fmt: skip
WHOLE = (["estimate", *DEMO],)
CHECKPOINT = 40 * 10**6
MINUTES = 10  # between two checkpoints, by default


def answers(repeat: int) -> None:
    for args in (*AT_ONCE, *HELP, *REFUSED, *WHOLE):
        took, cpu = [], []
        for _ in range(repeat):
            before = used_by_commands()
            took.append(run(args)[0])
            cpu.append(used_by_commands() - before)
        spread = f"{min(took):.2f} to {max(took):.2f}"
        print(f"{' '.join(args):60} {statistics.median(took):6.2f} s   {spread}; CPU {min(cpu):.2f} s", flush=True)


def used_by_commands() -> float:
    """Return the CPU seconds of all commands until now."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run(args: list[str]) -> tuple[float, str]:
    """Return the seconds and the output of a command."""
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "cli.py", *args], cwd=ROOT, capture_output=True, text=True, check=False)
    return time.perf_counter() - started, done.stdout + done.stderr


def first_step(rows: int, workers: int, repeat: int, scratch: Path) -> None:
    fit = [
        "fit", "--config", "configs/demo.yaml", "--run.root", str(scratch / "runs"), "--data.cache_dir",
        str(scratch / "cache"), "--data.train_rows",
        str(rows), "--data.val_rows", "100", "--data.num_workers", str(workers), "--trainer.accelerator", "cpu",
        "--trainer.max_steps", "1", "--trainer.log_every_n_steps", "1", "--trainer.limit_val_batches", "0",
        "--model.evaluation.rows", "0",
    ]  # fmt: skip
    for number in range(repeat + 1):
        begun, before = time.time(), used_by_commands()
        whole, printed = run(fit)
        logs = sorted((scratch / "runs").rglob("metrics.csv"), key=lambda path: path.stat().st_mtime)
        if not logs or logs[-1].stat().st_mtime < begun:
            sys.exit(f"the fit made no step:\n{printed}")
        kind = "warm" if number else "rows prepared first"
        step = logs[-1].stat().st_mtime - begun
        print(f"{rows:,} rows, {workers} workers, {kind}: first step {step:.1f} s, all {whole:.1f} s", end="")
        print(f" (CPU {used_by_commands() - before:.1f} s)", flush=True)


def checkpoints(repeat: int, scratch: Path) -> None:
    import torch

    from lightning_modules.checkpoints.checkpoint_file import write_checkpoint

    content = {f"tensor {k}": torch.randn(CHECKPOINT // 4 // 200) for k in range(200)}
    took = []
    for _ in range(2 * repeat):
        started = time.perf_counter()
        write_checkpoint(content, scratch / "some.ckpt")
        took.append(time.perf_counter() - started)
    size, median = os.path.getsize(scratch / "some.ckpt"), statistics.median(took)
    ratio = 100 * median / (60 * MINUTES)
    print(f"a checkpoint of {size / 1e6:.1f} MB: {median:.2f} s ({min(took):.2f} to {max(took):.2f}), {ratio:.3f} % of")
    print(f"{MINUTES} minutes; 1 % of the time for one every {100 * median:.0f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=250_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--scratch", type=Path, help="folder that is kept; by default a temporary one")
    parser.add_argument("--only", choices=["answers", "first_step", "checkpoints"])
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        scratch = args.scratch or Path(temporary)
        scratch.mkdir(parents=True, exist_ok=True)
        if args.only in (None, "answers"):
            answers(args.repeat)
        if args.only in (None, "first_step"):
            first_step(args.rows, args.workers, args.repeat, scratch)
        if args.only in (None, "checkpoints"):
            checkpoints(args.repeat, scratch)


if __name__ == "__main__":
    main()
