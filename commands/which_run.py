"""Which run and which checkpoint a command is about.

No heavy imports: a wrong path is refused before torch is loaded.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from commands.parsing import Parser, read_yaml
from commands.preflight import options
from errors import UserError
from lightning_modules.run.folder import Run, RunSettings, find_checkpoint, find_runs, locate


def add_run_arguments(parser: Parser) -> None:
    """Add the options that choose a run and a checkpoint."""
    parser.add_argument("--run", type=str | None, default=None, help="Folder runs/NAME/TIME; null is the newest run.")
    parser.add_argument(
        "--ckpt_path", type=str | None, default=None, help="Checkpoint: best, last or a .ckpt file; null is best."
    )
    parser.add_argument("--root", type=str, default=RunSettings().root, help="Folder of all runs.")


def find(run: str | None, ckpt_path: str | None, root: str) -> tuple[Run, Path]:
    """Return the run and the checkpoint that the options choose. Raise UserError if there is none."""
    if run is not None:
        found = Run(Path(run).expanduser())
        found.config()  # raises if the folder is not a run
        checkpoint = {"last": found.last, "best": found.best, None: found.best_or_last()}.get(ckpt_path)
        return found, checkpoint or find_checkpoint(str(ckpt_path), root, None, "--root")
    return locate(ckpt_path, root, None, "--run", "--root")


def run_config(run: Run) -> dict[str, Any]:
    """Return the settings of a run. Raise UserError if a group is missing: the end of the file may be lost."""
    config = read_yaml(str(run.config()), "--run")
    for group in ("model", "data", "trainer"):
        if not isinstance(config.get(group), dict):
            raise UserError("--run", run.config(), f"has no settings of {group}", "restore the file from a copy")
    return config


def config_of_newest_run() -> Path:
    """The config of the newest run. Raises UserError if there is none."""
    newest = next(find_runs(RunSettings().root), None)
    if newest is None:
        problem = "is not given, and there is no run yet whose config could be used"
        raise UserError("--config", None, problem, "give one: --config configs/demo.yaml")
    return newest.config()


def run_to_measure(args: Sequence[str]) -> tuple[Run, Path]:
    """The run and the checkpoint of validate, test and predict without a --config: the run's own is used. Raises
    UserError if there is none, and for a damaged config."""
    told = {"run.root": RunSettings().root} | dict(options(args))
    run, checkpoint = locate(told.get("ckpt_path"), told["run.root"], told.get("run.name"), "--config")
    run_config(run)
    return run, checkpoint
