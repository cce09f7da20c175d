"""Start the measuring processes, stop them at their time limit, and save each result as soon as it is printed."""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from benchmarks.speed.rows import ROOT

SIDES = ("ours", "trl", "plain", "rates", "model")


def parse_side(text: str) -> dict[str, Any]:
    """Return the name and options of a side like `trl:liger,attention=sdpa`. Values are JSON, else text."""
    side, _, rest = text.partition(":")
    if side not in SIDES:
        raise SystemExit(f"--sides: {text!r} is not a side. Choose from ours, trl, plain.")
    options: dict[str, Any] = {}
    for part in filter(None, rest.split(",")):
        name, given, value = part.partition("=")
        try:
            options[name] = json.loads(value) if given else True
        except ValueError:
            options[name] = value
    return {"side": side, "options": options}


class Runs:
    def __init__(self, out: Path, deadline: float, trl_python: str | None) -> None:
        self.out, self.deadline, self.trl_python = out, deadline, trl_python

    def keep(self, figures: dict[str, Any]) -> None:
        with self.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(figures) + "\n")

    def one(self, task: dict[str, Any], seconds: float) -> dict[str, Any]:
        """Return the figures of one process; after a failure or a timeout `error` and the finished steps."""
        left = min(seconds, self.deadline - time.monotonic())
        label = task["side"] + "".join(f" {name}={value}" for name, value in task.get("options", {}).items())
        if left <= 0:
            return {"error": "not started: the time limit --minutes was reached"}
        python = self.trl_python if task["side"] == "trl" and self.trl_python else sys.executable
        environment = os.environ | {
            "OMP_NUM_THREADS": str(task["threads"]), "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1",
            "TRANSFORMERS_VERBOSITY": "error", "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
        }  # fmt: skip
        started = time.monotonic()
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file, tempfile.TemporaryFile("w+") as errors:
            json.dump(task, file)
            file.flush()
            command = [python, "-m", "benchmarks.speed.worker", file.name]
            process = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True
            )
            timer = threading.Timer(left, process.kill)
            timer.start()
            result, steps = self._read(process, label)
            code = process.wait()
            timer.cancel()
            errors.seek(0)
            said = errors.read().strip().splitlines()
        if result is None:
            late = time.monotonic() - started >= left
            result = {"error": f"stopped after {left:.0f} s" if late else f"exit code {code}: {' | '.join(said[-3:])}"}
            result |= {key: [step[name] for step in steps] for key, name in COLUMNS.items()} if steps else {}
            if steps:
                result["peak"] = steps[-1]["peak"]
            print(f"  {label}: {result['error']}", flush=True)
        return result | {"process_seconds": round(time.monotonic() - started, 1), "load": os.getloadavg()[0]}

    def _read(self, process: "subprocess.Popen[str]", label: str) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
        result, steps = None, []
        assert process.stdout is not None
        for line in process.stdout:
            if not line.startswith(('{"step"', '{"result"')):
                continue  # output of the libraries
            said = json.loads(line)
            if "result" in said:
                result = said["result"]
            else:
                steps.append(said)
                self.keep({"side": label, **said})
                print(f"  {label}: step {said['step']} {said['seconds']:.2f} s loss {said['loss']:.4f}", flush=True)
        return result, steps

    def commit(self) -> str:
        done = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
        return done.stdout.strip()


COLUMNS = {"seconds": "seconds", "losses": "loss", "tokens": "tokens"}
