"""Run folders, `runs/<name>/<start time>/`. A run folder is created once and never overwritten.

This file imports nothing heavy: the command line looks for runs before it loads torch.
"""

import json
import logging
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from disk import disk_error, disk_errors, write_file
from errors import UserError, did_you_mean

log = logging.getLogger("thinkwright")
FIGURES = ("before", "after", "right_before", "right_after")  # of summary.json
STARTED = "%Y-%m-%d_%H-%M-%S"


@dataclass
class RunSettings:
    """The folder of the run."""

    name: str = "run"
    """Name of the run. `--ckpt_path last` resumes the newest run of this name."""
    root: str = "runs"
    """Folder of all runs; on several machines it must be shared."""


@dataclass
class Run:
    """A run folder and the names in it."""

    folder: Path

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def last(self) -> Path:
        return self.checkpoints / "last.ckpt"

    @property
    def best(self) -> Path:
        """The checkpoint with the lowest val/loss."""
        return self.checkpoints / "best.ckpt"

    def numbered(self, step: int) -> Path:
        """The checkpoint after optimizer step `step`, as long as it is kept."""
        return self.checkpoints / f"step-{step:07d}.ckpt"

    def all_numbered(self) -> list[Path]:
        """Return the checkpoints with a step in their name, by step."""
        return sorted(self.checkpoints.glob("step-*.ckpt"))

    def best_or_last(self) -> Path:
        """Return the best checkpoint, or the last one if training ended before a validation. It may not exist."""
        return self.best if self.best.is_file() or not self.last.is_file() else self.last

    @property
    def metrics(self) -> Path:
        return self.folder / "metrics.csv"

    @property
    def samples(self) -> Path:
        return self.folder / "samples.md"

    @property
    def summary(self) -> Path:
        return self.folder / "summary.json"

    def config(self) -> Path:
        """Return the resolved config; a resumed run has several, and this is the newest."""
        files = [path for path in self.folder.glob("config*.yaml") if path.is_file()]
        found = sorted(files, key=lambda path: (path.stat().st_mtime, path.name))
        if not found:
            raise UserError("--run", self.folder, "is not a run: it has no config.yaml", "give a folder runs/NAME/TIME")
        return found[-1]

    def suffix(self) -> str:
        """Return the suffix for the files of this start, so that a resume keeps the files of earlier starts."""
        return f"-{datetime.now():{STARTED}}" if (self.folder / "config.yaml").exists() else ""

    def read_summary(self) -> dict[str, Any]:
        """Return summary.json; empty if it does not exist. A damaged one is set aside, and a line says so."""
        try:
            found = json.loads(self.summary.read_bytes())
            if isinstance(found, dict) and all(_are_figures(found.get(key, {})) for key in FIGURES):
                return found
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, RecursionError):
            pass
        with suppress(OSError):
            keep_damaged(self.summary, "its figures are missing")
        return {}

    def update_summary(self, **figures: Any) -> None:
        """Add figures to summary.json, atomically."""
        with disk_errors("run.root", self.summary):
            write_file(self.summary, json.dumps(self.read_summary() | figures, indent=2) + "\n")


def keep_damaged(path: Path, loss: str) -> None:
    """Give a damaged file another name. A line says so, and what is lost. Raises OSError."""
    aside = path.with_name(f"{path.stem}-damaged-{datetime.now():{STARTED}}{path.suffix}")
    log.warning(f"warning: {path} is damaged; it is kept as {aside.name}, and {loss}")
    path.rename(aside)


def _are_figures(value: Any) -> bool:
    """Whether a value read from a file is {name: number}."""
    return isinstance(value, dict) and all(isinstance(one, int | float) for one in value.values())


def root_folder(root: str, setting: str = "run.root") -> Path:
    """Return a setting as a path. Raise UserError for the home of a user that does not exist."""
    try:
        return Path(root).expanduser()
    except RuntimeError as error:
        raise UserError(setting, root, f"is no path ({error})", "give another path") from error


def new_run(settings: RunSettings) -> Run:
    """Create a folder named by the time. Raise UserError if that fails."""
    parent = root_folder(settings.root) / settings.name
    started = datetime.now().strftime(STARTED)
    for suffix in ("", *(f"-{n}" for n in range(2, 1000))):
        try:
            (parent / (started + suffix) / "checkpoints").mkdir(parents=True)
        except FileExistsError:
            if parent.is_dir():
                continue  # another run started in the same second
            raise UserError("run.root", settings.root, "is not a folder", "give a folder that can be written") from None
        except OSError as error:
            raise disk_error("run.root", settings.root, error) from error
        return Run(parent / (started + suffix))
    raise AssertionError("1,000 runs in one second")


def find_runs(root: str, name: str | None = None) -> Iterator[Run]:
    """Yield the runs that have a config, the newest first; of one name or of all."""
    base = root_folder(root)
    found = (base / name).glob("*/config.yaml") if name else _configs(base)
    found = (path for path in found if path.is_file())
    return (Run(path.parent) for path in sorted(found, key=lambda path: path.parent.name, reverse=True))


def _configs(folder: Path) -> Iterator[Path]:
    """Yield the config of each run below a folder. Names may have slashes, so runs may be at any depth."""
    with suppress(OSError):
        for entry in sorted(folder.iterdir()):
            if (entry / "config.yaml").is_file():
                yield entry / "config.yaml"
            elif entry.is_dir() and not entry.is_symlink():
                yield from _configs(entry)


def newest_run(root: str, name: str | None = None, setting: str = "run.root") -> Run:
    """Return the newest run that has a checkpoint. Raise UserError if there is none; `setting` gave the root."""
    for run in find_runs(root, name):
        if run.best_or_last().is_file():
            return run
    where = Path(root) / (name or "")
    named = root_folder(root) / name if name else root_folder(root)  # a name may be a path of its own
    if found := next(named.glob("*/checkpoints/last.ckpt" if name else "*/*/checkpoints/last.ckpt"), None):
        fix = "restore config.yaml from a copy, or give --config and --ckpt_path FILE"
        raise UserError("--run", found.parent.parent, "has checkpoints and no config.yaml", fix)
    names = {str(run.folder.parent.relative_to(root_folder(root))) for run in find_runs(root)}
    near = did_you_mean(name, names) if name else None
    fix = (
        f"did you mean run.name {near}?"
        if near and near != name
        else "train one first: python cli.py fit --config configs/demo.yaml"
    )
    raise UserError("run.name" if name else setting, where, "holds no run with a checkpoint yet", fix)


def run_of(checkpoint: Path) -> Run | None:
    """Return the run whose folder holds a checkpoint file; None if the file is elsewhere."""
    folder = checkpoint.resolve().parent.parent
    return Run(folder) if (folder / "config.yaml").is_file() else None


def find_checkpoint(given: str, root: str, name: str | None, setting: str = "run.root") -> Path:
    """Return the file for `--ckpt_path`: `last` or `best` of the newest run of this name, a run folder, or a file."""
    if given in ("last", "best"):
        run = newest_run(root, name, setting)
        return run.best_or_last() if given == "best" or not run.last.is_file() else run.last
    path = root_folder(given, "--ckpt_path")
    try:
        path = Run(path).last if path.is_dir() else path
        is_file = path.is_file()
    except OSError as error:
        problem = f"cannot be opened ({error.strerror})"
        raise UserError("--ckpt_path", given, problem, "give a path that can be opened") from error
    if not is_file:
        raise UserError(
            "--ckpt_path",
            given,
            "is not a checkpoint, nor a run with a checkpoint",
            "give last, best, a run folder or a .ckpt file",
        )
    return path


def locate(
    ckpt_path: str | None, root: str, name: str | None, otherwise: str, setting: str = "run.root"
) -> tuple[Run, Path]:
    """Return the run and the checkpoint for `--ckpt_path`; without it the best checkpoint of the newest run.

    Raise UserError if there is none. Raise it also for a file outside a run folder, because its config is not known;
    `otherwise` is the option that gives the config, `setting` the one that gave the root.
    """
    if ckpt_path in (None, "best", "last"):
        found = newest_run(root, name, setting)
        return found, found.last if ckpt_path == "last" else found.best_or_last()
    checkpoint = find_checkpoint(ckpt_path, root, name, setting)
    if (owner := run_of(checkpoint)) is None:
        problem = "is not in a run folder, so its config is not known"
        raise UserError("--ckpt_path", checkpoint, problem, f"give {otherwise} as well")
    return owner, checkpoint
