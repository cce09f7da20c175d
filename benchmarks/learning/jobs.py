"""Commands of `cli.py`, several at once, each in its own process.

The processes are forked from a process that has imported the libraries. That saves about ten seconds for each.
"""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import forkserver
from pathlib import Path
from typing import Any, NamedTuple

from errors import INTERRUPTED, TERMINATED, UserError
from hub import CHECKOUT

HEAVY = ["cli", "commands.fit", "commands.preview", "commands.evaluate", "transformers", "peft"]
CPU = "CPU seconds: "


class Command(NamedTuple):
    """A command line of `cli.py`, and the file that its output is appended to. With `python` the command line is that
    interpreter's."""

    args: Sequence[str]
    log: Path
    python: Path | None = None


Job = Iterator[Command]  # commands that run one after another; each is asked for when the one before it has ended


def in_cli(args: list[str], log: str, threads: int, python: str | None = None) -> None:
    """Run `python cli.py` with these arguments and threads in this process, and append its output to a file.

    The process has its own session, so only `run_jobs` passes a Ctrl-C on. A second one would end it before it saves.
    """
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.chdir(CHECKOUT)
    with open(log, "a", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    if python is not None:
        os.execve(python, [python, *args], os.environ | {"OMP_NUM_THREADS": str(threads)})
    import torch

    from cli import main

    torch.set_num_threads(threads)  # two processes that share a core wait for each other's threads most of the time
    code = main(args)
    print(f"{CPU}{time.process_time():.1f}", flush=True)
    sys.exit(code)


def run_jobs(jobs: Sequence[Job], at_once: int = 1, watch: Callable[[], None] = lambda: None) -> list[UserError]:
    """Run all jobs, some at once, and call `watch` meanwhile. Return the errors of the jobs that failed.

    Ctrl-C and SIGTERM are passed on to the commands, which save a checkpoint; then the process ends.
    """
    threads = max(1, len(os.sched_getaffinity(0)) // at_once)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(HEAVY)
    signals: list[int] = []
    stops = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in stops}
    forkserver.ensure_running()  # it inherits SIG_IGN: a signal to the whole group must not end it before its children
    waiting, failed = list(jobs), list[UserError]()
    running: list[tuple[Any, Job, Command]] = []

    def begin(job: Job) -> None:
        if not signals and (command := next(job, None)) is not None:
            given = list(command.args), str(command.log), threads, str(command.python) if command.python else None
            process = context.Process(target=in_cli, args=given)
            process.start()
            running.append((process, job, command))

    try:
        for number in stops:
            signal.signal(number, lambda number, frame: signals.append(number))
        passed_on = 0
        while running or (waiting and not signals):
            while waiting and len(running) < at_once and not signals:
                begin(waiting.pop(0))
            for one in list(running):
                process, job, command = one
                process.join(0.2)
                if process.is_alive():
                    continue
                running.remove(one)
                if process.exitcode and not signals:
                    failed.append(_failure(command, process.exitcode))
                else:
                    begin(job)
            if len(signals) > passed_on:  # a command stops at once after a second signal
                for process, _, _ in running:
                    process.terminate()
                passed_on += 1
            watch()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if signals:
        print("stopped; the same command continues", file=sys.stderr)
        sys.exit(TERMINATED if signals[0] == signal.SIGTERM else INTERRUPTED)
    return failed


def run_cli(args: Sequence[str], log: Path) -> None:
    """Run one command to its end. Raise UserError if it fails."""
    for error in run_jobs([iter([Command(args, log)])]):
        raise error


def _failure(command: Command, code: int) -> UserError:
    lines = command.log.read_text(encoding="utf-8", errors="replace").splitlines() if command.log.exists() else []
    said = [line for line in lines if line.strip() and not line.startswith(CPU)]
    problem = f"ended with {code}: {said[-1] if said else ''}"
    name = f"{command.python or 'cli.py'} {' '.join(command.args[:2] if command.python else command.args[:1])}"
    return UserError(name, None, problem.rstrip("."), f"see {command.log}")


def cpu_seconds(logs: Path) -> float:
    """Return the CPU seconds of all commands with their log in a folder, stopped ones included."""
    lines = [line for log in logs.glob("*.log") for line in log.read_text(errors="replace").splitlines()]
    return sum(float(line.removeprefix(CPU)) for line in lines if line.startswith(CPU))
