"""A command of the learning benchmark that needs a second to save after a signal: python -m … LOG."""

import os
import signal
import sys
import time
from pathlib import Path

from benchmarks.learning import jobs


def command(args: list[str], log: str, threads: int, python: str | None = None) -> None:
    os.setsid()
    stop: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: stop.append(number))
    with open(log, "a", encoding="utf-8", buffering=1) as file:
        file.write("begun\n")
        while not stop:
            time.sleep(0.05)
        time.sleep(1)
        file.write("saved\n")


if __name__ == "__main__":
    from tests.benchmarks import slow_to_save

    jobs.HEAVY, jobs.in_cli = [], slow_to_save.command
    jobs.run_cli([], Path(sys.argv[1]))
