"""One measurement in its own process: python -m benchmarks.speed.worker TASK.json. It prints JSON lines."""

import importlib.metadata
import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

from benchmarks.speed.record import Steps, say

PACKAGES = ("torch", "transformers", "peft", "trl", "lightning", "accelerate", "liger_kernel", "triton", "flash_attn")


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def device_name(task: dict[str, Any]) -> str:
    import torch

    if task["device"] == "cuda":
        return torch.cuda.get_device_name()
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def train(task: dict[str, Any]) -> None:
    import torch

    if task["side"] == "ours":
        from benchmarks.speed.ours import run
    elif task["side"] == "trl":
        from benchmarks.speed.theirs import run_trl as run
    else:
        from benchmarks.speed.theirs import run_plain as run
    steps = Steps(task)
    out_of_memory, known = False, {}
    try:
        known = run(task, steps)
    except torch.OutOfMemoryError:
        out_of_memory = True
    figures = steps.figures() | {"out_of_memory": out_of_memory, **known}
    if steps.profiler is not None:
        from benchmarks.speed.profiling import groups

        steps.profiler.export_chrome_trace(task["profile"])
        figures["groups"] = groups(steps.profiler, task)
    say(result=figures | {"versions": versions(), "device_name": device_name(task)})


def main() -> None:
    task = json.loads(Path(sys.argv[1]).read_text())
    import torch

    torch.set_num_threads(task["threads"])
    if task["side"] == "model":
        from benchmarks.speed.shapes import make_model

        make_model(Path(task["model"]), task)
        say(result={"model": task["model"]})
    elif task["side"] == "rates":
        from benchmarks.speed.limit import rates

        say(result=rates(task) | {"device_name": device_name(task)})
    else:
        train(task)
    sys.stdout.flush()
    os._exit(0)  # without waiting for threads of the libraries


if __name__ == "__main__":
    main()
