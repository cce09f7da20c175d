"""The jobs of each part: command lines of the tests, of the other benchmarks and of `fit`. Nothing is measured here."""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from benchmarks.memory import CUDA

Part = Literal["tests", "speed", "memory", "generate", "learn"]
PARTS: tuple[Part, ...] = ("tests", "speed", "memory", "generate", "learn")
OUT = "{out}"  # in an argument: a new file or folder for the job's own results
ROWS, TRL_PYTHON = "{rows}", "{trl_python}"  # in an argument: the files given on the command line


@dataclass(frozen=True)
class Job:
    """One process. `needs` are the names of what the machine must have (machine.py)."""

    part: Part
    name: str
    args: tuple[str, ...]  # of the Python interpreter
    needs: tuple[str, ...] = ()


def jobs(device: str, missing: Iterable[str]) -> list[Job]:
    """Return the jobs of all parts for `cuda` or, as a rehearsal with small shapes, for `cpu`.

    missing: what the machine lacks; the sides of a comparison that need it are left out
    """
    lacks = set(missing)
    return [*_tests(), *_speed(device, lacks), *_memory(device), *_generate(device), *_learn(device)]


def _tests() -> Iterable[Job]:
    yield Job("tests", "pytest -m gpu", ("-m", "pytest", "-q", "-n", "0", "-m", "gpu", "-rs", "tests"), ("gpu",))


def _speed(device: str, lacks: set[str]) -> Iterable[Job]:
    peers = [] if "trl" in lacks else ["trl"] if lacks & {"liger", "gpu"} else ["trl", "trl:liger"]
    cuda = device == "cuda"
    shape, lengths = ("qwen1.5-1.8b", [4096, 512]) if cuda else ("small", [256])
    dtypes = ["bfloat16", "float16"] if cuda else ["float32"]
    timed = ("--warm", "3", "--steps", "8") if cuda else ("--warm", "1", "--steps", "1")
    common: tuple[str, ...] = (
        "-m",
        "benchmarks.speed",
        "--rows",
        ROWS,
        "--device",
        device,
        "--shape",
        shape,
        "--out",
        OUT,
    )
    common += (*(("--trl-python", TRL_PYTHON) if peers else ()), "--minutes", "7.5", "--repeat", "1")
    for length, kind, dtype in itertools.product(lengths, ("packed", "padded"), dtypes):
        case = ("--length", str(length), "--kind", kind, "--dtype", dtype)
        sides = ("--sides", "ours", *peers, "plain")
        yield Job("speed", f"{length} {kind}, {dtype}", (*common, *timed, *case, *sides), ("rows",))
    for length in lengths:
        packed = ("--length", str(length), "--kind", "packed", "--dtype", dtypes[0], "--sides", "ours")
        profiled = (*common, *timed, *packed, "--profile", f"{OUT}.traces")
        yield Job("speed", f"{length} packed, time by operation", profiled, ("rows",))
        if cuda:
            for side in ("ours", *peers):
                largest = (*common, *packed[:-1], side, "--largest", "--run-seconds", "420")
                yield Job("speed", f"{length}, largest batch, {side}", largest, ("rows",))


def _memory(device: str) -> Iterable[Job]:
    for name in CUDA if device == "cuda" else ("vocabulary",):
        yield Job("memory", name, ("-m", "benchmarks.memory", "--device", device, "--only", name))


def _generate(device: str) -> Iterable[Job]:
    args = ("-m", "benchmarks.generate", "--device", device, "--only", "0.5b", "--repeat", "1", "--out", OUT)
    yield Job("generate", "Qwen1.5-0.5B's shape", args)


def _learn(device: str) -> Iterable[Job]:
    args = ("cli.py", "fit", "--config", "configs/demo.yaml", "--run.root", OUT, "--trainer.devices", "1")
    accelerator = ("--trainer.accelerator", "gpu" if device == "cuda" else "cpu")
    yield Job("learn", "the demo's fit", (*args, *accelerator))
