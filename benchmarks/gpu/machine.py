"""What a machine has of all that the jobs need, and one line for each thing that it lacks."""

import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import torch

PACKAGES = ("torch", "transformers", "peft", "lightning", "triton", "bitsandbytes", "flash_attn", "trl", "liger_kernel")


def missing(device: str, rows: Path | None, trl_python: str | None) -> dict[str, str]:
    """Return name -> line for what is missing. The lines say what is left out because of it."""
    found: dict[str, str] = {}
    if device != "cuda" or not torch.cuda.is_available():
        found["gpu"] = "no GPU: pytest -m gpu is left out; the other parts run small shapes on the CPU, as a rehearsal"
    if rows is None or not rows.is_file():
        found["rows"] = "no rows (--rows, made by python -m benchmarks.speed.rows): the part speed is left out"
    for name, module, line in (
        ("trl", "trl", "no TRL (--trl-python PYTHON): only plain transformers is compared"),
        ("liger", "liger_kernel", "no Liger kernels: TRL runs without them"),
        ("flash", "flash_attn", "no flash-attn: TRL's padding-free batches use SDPA"),
    ):
        if not _has(module, trl_python):
            found[name] = line
    if not find_spec("bitsandbytes"):
        found["bitsandbytes"] = "no bitsandbytes: the tests of a base in 4 bits are skipped"
    return found


def _has(module: str, python: str | None) -> bool:
    """Whether a module can be found, by the interpreter given or by this one."""
    if python is None or python == sys.executable:
        return find_spec(module) is not None
    command = [python, "-c", f"import importlib.util as u, sys; sys.exit(u.find_spec({module!r}) is None)"]
    try:
        return subprocess.run(command, check=False, capture_output=True, timeout=60).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def described(device: str) -> str:
    """Return the name of the device, and the versions of the packages, in one line."""
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    return f"{name}; {', '.join(_versions())}"


def _versions() -> Iterator[str]:
    for package in PACKAGES:
        try:
            yield f"{package} {metadata.version(package.replace('_', '-'))}"
        except metadata.PackageNotFoundError:
            continue
