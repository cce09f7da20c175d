"""Run folders, `runs/<name>/<start time>/`: made once, found again, never overwritten. No heavy imports: the CLI asks
here before it loads anything."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from errors import UserError, did_you_mean

STARTED = "%Y-%m-%d_%H-%M-%S"


@dataclass
class RunSettings:
    """Where a run is kept."""

    name: str = "run"
    """Runs of one name are kept together; `--ckpt_path last` continues the newest of them."""
    root: str = "runs"
    """Folder of all runs."""


@dataclass
class Run:
    """One run's folder and what is in it."""

    folder: Path

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def last(self) -> Path:
        return self.checkpoints / "last.ckpt"

    @property
    def best(self) -> Path:
        """By val/loss."""
        return self.checkpoints / "best.ckpt"

    def numbered(self, step: int) -> Path:
        """The checkpoint after optimizer step `step`, as long as it is kept."""
        return self.checkpoints / f"step-{step:07d}.ckpt"

    def all_numbered(self) -> list[Path]:
        """Those that there are, the newest last."""
        return sorted(self.checkpoints.glob("step-*.ckpt"))

    def best_or_last(self) -> Path:
        """The best; where training ended before the first validation, the last. It may not exist."""
        return self.best if self.best.is_file() or not self.last.is_file() else self.last

    @property
    def samples(self) -> Path:
        return self.folder / "samples.md"

    @property
    def summary(self) -> Path:
        return self.folder / "summary.json"

    def config(self) -> Path:
        """The resolved config; of a continued run, the newest of several."""
        found = sorted(self.folder.glob("config*.yaml"), key=lambda path: (path.stat().st_mtime, path.name))
        if not found:
            raise UserError("--run", self.folder, "is not a run: it has no config.yaml", "give a folder runs/NAME/TIME")
        return found[-1]

    def suffix(self) -> str:
        """What the files of this start are told apart by: a run that is continued keeps the earlier ones."""
        return f"-{datetime.now():{STARTED}}" if (self.folder / "config.yaml").exists() else ""

    def read_summary(self) -> dict[str, Any]:
        """Empty where there is none yet."""
        return json.loads(self.summary.read_text()) if self.summary.exists() else {}

    def update_summary(self, **figures: Any) -> None:
        """Adds to summary.json, whole or not at all."""
        scratch = self.summary.with_suffix(".tmp")
        scratch.write_text(json.dumps(self.read_summary() | figures, indent=2) + "\n")
        os.replace(scratch, self.summary)


def new_run(settings: RunSettings) -> Run:
    """A new, empty folder named by the time. Raises UserError if it cannot be made."""
    parent = Path(settings.root).expanduser() / settings.name
    started = datetime.now().strftime(STARTED)
    for suffix in ("", *(f"-{n}" for n in range(2, 1000))):
        try:
            (parent / (started + suffix) / "checkpoints").mkdir(parents=True)
        except FileExistsError:
            if parent.is_dir():
                continue  # another run began in this second
            raise UserError("run.root", settings.root, "is not a folder", "give a folder that can be written") from None
        except OSError as error:
            raise UserError(
                "run.root", settings.root, f"cannot be written ({error.strerror})", "give a folder that can be written"
            ) from error
        return Run(parent / (started + suffix))
    raise AssertionError("a thousand runs in one second")


def find_runs(root: str, name: str | None = None) -> Iterator[Run]:
    """Runs with a config, the newest first, of this name or of all."""
    base = Path(root).expanduser()
    configs = base.glob(f"{name}/*/config.yaml" if name else "*/*/config.yaml")
    return (Run(path.parent) for path in sorted(configs, key=lambda path: path.parent.name, reverse=True))


def newest_run(root: str, name: str | None = None) -> Run:
    """The newest run that has a checkpoint. Raises UserError where there is none."""
    for run in find_runs(root, name):
        if run.best_or_last().is_file():
            return run
    where = Path(root) / (name or "")
    near = did_you_mean(name, {run.folder.parent.name for run in find_runs(root)}) if name else None
    fix = (
        f"did you mean run.name {near}?"
        if near and near != name
        else "train one first: python cli.py fit --config configs/demo.yaml"
    )
    raise UserError("run", where, "holds no run with a checkpoint yet", fix)


def run_of(checkpoint: Path) -> Run | None:
    """The run that a checkpoint file belongs to, if it lies in one."""
    folder = checkpoint.resolve().parent.parent
    return Run(folder) if (folder / "config.yaml").is_file() else None


def find_checkpoint(given: str, root: str, name: str | None) -> Path:
    """The file meant by `--ckpt_path`: `last` or `best` of the newest run of this name, a run's folder, or a file."""
    if given in ("last", "best"):
        run = newest_run(root, name)
        return run.best_or_last() if given == "best" or not run.last.is_file() else run.last
    path = Path(given).expanduser()
    if path.is_dir():
        path = Run(path).last
    if not path.is_file():
        raise UserError(
            "--ckpt_path",
            given,
            "is not a checkpoint nor a run with one",
            "give last, best, a run's folder or a .ckpt file",
        )
    return path


def locate(ckpt_path: str | None, root: str, name: str | None, otherwise: str) -> tuple[Run, Path]:
    """The run and checkpoint meant where only a checkpoint may be named: the newest run's best, if it is not.

    Raises UserError where there is none, and for a file outside a run, whose config only the option `otherwise` tells.
    """
    if ckpt_path in (None, "best", "last"):
        found = newest_run(root, name)
        return found, found.last if ckpt_path == "last" else found.best_or_last()
    checkpoint = find_checkpoint(ckpt_path, root, name)
    if (owner := run_of(checkpoint)) is None:
        problem = "does not lie in a run's folder, so its config is unknown"
        raise UserError("--ckpt_path", checkpoint, problem, f"give {otherwise}, too")
    return owner, checkpoint
