"""A stand-in for srun on a machine without SLURM: one task for each node of the job, all on this machine.

It sets the variables of SLURM 22.05 that Lightning and this project read. When one task fails, it ends all tasks, as
srun --kill-on-bad-exit=1 does. It passes SIGTERM to every process of every task, as scancel does.
"""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from itertools import takewhile

SECONDS = 150  # the longest time that a test waits


def srun(args: list[str]) -> int:
    """Run the command that follows the options (--name=value); return the highest exit code of its tasks."""
    options = list(takewhile(lambda arg: arg.startswith("--"), args))
    (output,) = (option.partition("=")[2] for option in options if option.startswith("--output="))
    tasks = []
    for rank in range(int(os.environ["SLURM_NNODES"])):
        place = {"SLURM_STEP_ID": "0", "SLURM_PROCID": str(rank), "SLURM_NODEID": str(rank), "SLURM_LOCALID": "0"}
        place["PYTHONFAULTHANDLER"] = "1"
        with open(output.replace("%t", str(rank)), "ab") as log:
            tasks.append(
                subprocess.Popen(
                    args[len(options) :], stdout=log, stderr=log, env=os.environ | place, start_new_session=True
                )
            )
    signal.signal(signal.SIGTERM, lambda *_: to_all(tasks, signal.SIGTERM))
    until, failed = time.monotonic() + SECONDS, False
    try:
        while None in (codes := [task.poll() for task in tasks]) and time.monotonic() < until:
            if any(codes) and not failed:
                failed = True
                to_all(tasks, signal.SIGTERM)
            time.sleep(0.05)
        if None in codes:
            to_all(tasks, signal.SIGABRT)  # a task that still runs prints its stack
            time.sleep(2)
    finally:
        to_all(tasks, signal.SIGKILL)
    ended = [task.wait() for task in tasks]
    return max(128 - code if code < 0 else code for code in ended)


def to_all(tasks: list["subprocess.Popen[bytes]"], signum: int) -> None:
    """Send a signal to every process of every task."""
    for task in tasks:
        with suppress(ProcessLookupError):
            os.killpg(task.pid, signum)


if __name__ == "__main__":
    sys.exit(srun(sys.argv[1:]))
