"""Help and refusals within a second: what a command can say before it imports torch and Lightning.

The checks are those of the command itself, in its order, over the settings in settings.json. Whatever they cannot
decide goes on to the command, which says the same some seconds later.
"""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from commands.no_effect import without_effect
from commands.paths import check_data, check_fit_paths, check_model
from commands.preflight import check_trainer
from commands.recorded import Recorded, Undecided
from commands.which_run import config_of_newest_run, find, run_to_measure
from errors import UserError
from lightning_modules.run.folder import find_checkpoint

GPU_DRIVERS = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")  # of NVIDIA, of Linux in Windows, of AMD
# Variables of one process among several, which speak with one voice; and those that change Lightning's defaults
SEVERAL, DEFAULTS = ("LOCAL_RANK", "RANK", "WORLD_SIZE", "SLURM_NTASKS"), "PL_TRAINER_"
MEASURING = ("validate", "test", "predict")


def answer(command: str, args: Sequence[str]) -> bool:
    """Print the help if it is asked for, and return True. Raise UserError for a mistake that is seen already."""
    if any(name in SEVERAL or name.startswith(DEFAULTS) for name in os.environ):
        return False
    recorded = Recorded()
    helps = bool({"-h", "--help"} & set(args))
    if not recorded.usable or (helps and not recorded.fresh()):
        return False
    parser = recorded.parser(command)
    if helps:
        print(parser.help(), flush=True)
        return True
    notices: list[str] = []  # what the command prints before it refuses
    checkpoint: Path | None = None

    def config_of_run() -> Path:
        nonlocal checkpoint
        run, checkpoint = run_to_measure(args)
        return run.config()

    def newest_config() -> Path:
        notices.append(f"config {(found := config_of_newest_run())}")
        return found

    otherwise: Callable[[], Path] | None = {"preview": newest_config, **dict.fromkeys(MEASURING, config_of_run)}.get(
        command
    )
    try:
        given = parser.parse(args, otherwise)
        notices += without_effect(command, parser.settings, given)
        if command in ("fit", *MEASURING):
            check_fit(command, given, checkpoint)
        elif command in CHECKS:
            CHECKS[command](given)
    except Undecided:
        return False
    except UserError:
        if not recorded.fresh():
            return False
        for line in notices:
            print(line, file=sys.stderr)
        raise
    return False


def check_fit(command: str, given: Any, checkpoint: Path | None) -> None:
    if given.trainer.accelerator != "cpu" and any(map(os.path.exists, GPU_DRIVERS)):
        raise Undecided  # torch counts the GPUs
    check_trainer(command, given, 0, os.environ)
    if checkpoint is None and (given.ckpt_path or command != "fit"):
        checkpoint = find_checkpoint(given.ckpt_path or "best", given.run.root, given.run.name)
    check_fit_paths(given, checkpoint)


def check_preview(given: Any) -> None:
    check_model(given)
    check_data(given)


def check_run(given: Any) -> None:
    find(given.run, given.ckpt_path, given.root)


def check_generate(given: Any) -> None:
    from commands.prompts import all_prompts

    if given.prompts == "-":
        raise Undecided  # standard input can be read once
    all_prompts(given)
    check_run(given)


CHECKS: dict[str, Callable[[Any], None]] = {
    "preview": check_preview,
    "estimate": check_model,
    "generate": check_generate,
    "export": check_run,
}
