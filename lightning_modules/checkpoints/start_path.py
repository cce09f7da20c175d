"""The file or folder that `model.start` names. No heavy imports: a wrong path is refused before torch is loaded."""

import os
from pathlib import Path

from errors import UserError
from hub import what_is_there
from lightning_modules.run.folder import Run, root_folder

SETTING = "model.start"
GIVE = "give a run's folder runs/NAME/TIME, a .ckpt file, or the folder of an adapter"


def find_start(given: str) -> Path:
    """Return the absolute path of the checkpoint file, or of the adapter's folder, that a value of `model.start` names.

    In a run's folder it is the best checkpoint, else the last one. Raises UserError if there is none.
    """
    path = Path(os.path.abspath(root_folder(given, SETTING)))
    try:
        names = {entry.name for entry in os.scandir(path)} if path.is_dir() else None
        exists = path.is_file()
    except OSError as error:
        problem = f"cannot be opened ({error.strerror})"
        raise UserError(SETTING, given, problem, "give a path that can be opened") from error
    if names is None:
        if not exists:
            raise UserError(SETTING, given, what_is_there(given), GIVE)
        return path
    if "adapter_config.json" in names:
        return path
    run = Run(path)
    if (found := run.best_or_last()).is_file():
        return found
    if "config.yaml" in names:
        raise UserError(SETTING, given, "is a run without a checkpoint", "give another run")
    if "config.json" in names:
        raise UserError(SETTING, given, "is a whole model, not a start for one", "set model.name to it instead")
    inner = [Run(path / name) for name in sorted(names, reverse=True)]
    newest = next((one.folder for one in inner if one.best_or_last().is_file()), None)
    fix = f"did you mean {Path(given) / newest.name}?" if newest else GIVE
    raise UserError(SETTING, given, "is neither a run's folder nor that of an adapter", fix)
