"""A fit that goes on from an older checkpoint begins a new branch of its run; the later files of the old one are kept.

They move to `set-aside/after-step-N-TIME/`: checkpoints, the lines of metrics.csv, and a copy of TensorBoard's events.
So the run's own files are of one branch, and nothing is overwritten.
"""

import itertools
import logging
import shutil
from datetime import datetime
from pathlib import Path

from disk import disk_errors, write_file
from lightning_modules.checkpoints.checkpoint_file import step_of
from lightning_modules.run.folder import STARTED, Run
from lightning_modules.run.metrics_file import read_lines, written

log = logging.getLogger("thinkwright")


def set_aside(run: Run, chosen: Path, step: int) -> Path | None:
    """Move everything of a run that came after optimizer step `step`; return its new folder, None if nothing did.

    chosen: the checkpoint that the fit goes on from; it stays, and becomes last.ckpt.
    """
    later = [path for path in sorted(run.checkpoints.glob("*.ckpt")) if path != chosen and _is_later(path, step)]
    kept, moved = split_metrics(run.metrics, step)
    if not later and not moved:
        return None
    name = f"after-step-{step:07d}-{datetime.now():{STARTED}}"
    folder = run.folder / "set-aside" / name
    for number in itertools.count(2):  # a start that failed in the same second has left its folder
        if not folder.exists():
            break
        folder = folder.with_name(f"{name}-{number}")
    with disk_errors("run.root", folder):
        folder.mkdir(parents=True)
        for path in later:
            path.rename(folder / path.name)
        for events in run.folder.glob("events.*") if later else ():
            shutil.copy2(events, folder)
        if moved:
            write_file(folder / run.metrics.name, moved)
            write_file(run.metrics, kept)
    what = ", ".join([*(path.name for path in later), *(["lines of metrics.csv"] if moved else [])])
    log.info(f"set aside, because training goes on from step {step:,}: {what}, in {folder}")
    return folder


def _is_later(path: Path, step: int) -> bool:
    found = step_of(path)
    return found is None or found > step  # a damaged file is kept as well


def split_metrics(path: Path, step: int) -> tuple[str, str]:
    """Return the text of metrics.csv up to a step, and the text of its later lines, which is empty if there are none.

    A file that is damaged is set aside as a whole.
    """
    if not path.is_file():
        return "", ""
    text = path.read_text(encoding="utf-8", errors="replace")
    text = text[: text.rfind("\n") + 1] or text  # without a last line that a kill has cut
    lines = read_lines(text)
    if lines is None:
        return "", text
    parts = [line for line in lines if int(line["step"]) <= step], [line for line in lines if int(line["step"]) > step]
    if not parts[1]:
        return text, ""
    kept, moved = (written(part, list(lines[0])) for part in parts)
    return kept, moved
