"""The environment of a run, so that it can be repeated: command, versions, machine, and the state of the code."""

import functools
import json
import os
import platform
import subprocess
import tomllib
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from disk import disk_errors, write_file
from hub import CHECKOUT

PACKAGES = ("torch", "lightning", "transformers", "tokenizers", "peft", "datasets", "torchmetrics", "bitsandbytes")
LARGEST_PATCH = 2**20  # bytes; a larger difference is hardly code


def environment(command: Sequence[str]) -> dict[str, Any]:
    """Return facts of this process and machine. Missing packages and missing git facts are None."""
    gpus = [torch.cuda.get_device_name(k) for k in range(torch.cuda.device_count())]
    changed = _git("status", "--porcelain")
    return {
        "command": list(command),
        "version": program_version(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
        "machine": {"platform": platform.platform(), "cpus": os.cpu_count(), "gpus": gpus, "cuda": torch.version.cuda},
        "git": {
            "commit": (_git("rev-parse", "HEAD") or "").strip() or None,
            "changed": None if changed is None else [line[3:] for line in changed.splitlines()],
        },
    }


@functools.cache
def program_version() -> str:
    """Return the version of this program, from pyproject.toml."""
    return str(tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"])


def write_environment(
    folder: Path, suffix: str, command: Sequence[str], parents: Sequence[Mapping[str, Any]] = ()
) -> None:
    """Write `environment{suffix}.json`, and `uncommitted{suffix}.patch` if tracked files differ from the commit.

    parents: the files that the run's weights came from
    """
    found = environment(command) | {"parents": list(parents)}
    patch = _git("diff", "HEAD")
    with disk_errors("run.root", folder):
        write_file(folder / f"environment{suffix}.json", json.dumps(found, indent=2) + "\n")
        if patch and len(patch) <= LARGEST_PATCH:
            write_file(folder / f"uncommitted{suffix}.patch", patch)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git(*args: str) -> str | None:
    """Return the output of git in the checkout; None without git or without a repository."""
    try:
        result = subprocess.run(
            ["git", "--no-optional-locks", "-C", CHECKOUT, *args],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=30,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout if result.returncode == 0 else None
