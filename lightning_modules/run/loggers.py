"""Loggers of a run: metrics.csv, which a resumed run continues, and TensorBoard events."""

import csv
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from disk import disk_error, disk_errors, write_file
from lightning_modules.run.folder import keep_damaged
from lightning_modules.run.metrics_file import read_lines, written


class MetricsCsv(CSVLogger):
    """Lightning's CSVLogger, but it writes each line of `metrics.csv` at once and keeps the lines of a resumed run."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, name="", version="", flush_logs_every_n_steps=1)
        self._opened = False

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        if self._opened:
            return super().experiment
        self._opened = True
        path, aside = (Path(self.log_dir) / name for name in ("metrics.csv", "metrics.csv.kept"))
        with disk_errors("run.root", path):
            if path.exists():
                os.replace(path, aside)  # Lightning deletes an existing file
            experiment: Any = super().experiment
            if aside.exists():
                os.replace(aside, path)
                _drop_cut_line(path)
                text = path.read_text(encoding="utf-8", errors="replace")
                if read_lines(text) is None:
                    keep_damaged(path, "a new file begins")
                else:
                    experiment.metrics_keys = next(csv.reader(io.StringIO(text)), [])  # names of groups may have commas
        return experiment

    @rank_zero_only
    def save(self) -> None:
        path = Path(self.log_dir) / "metrics.csv"
        with disk_errors("run.root", path):
            if path.is_file():
                self._add_columns(path)
            super().save()

    def _add_columns(self, path: Path) -> None:
        """Give the file the columns of new figures. A kill while Lightning does it would lose all lines."""
        experiment = self.experiment
        names = sorted({*experiment.metrics_keys}.union(*experiment.metrics))
        if names == sorted(experiment.metrics_keys):
            return
        with path.open(encoding="utf-8", newline="") as file:
            lines = read_lines(file.read())
        if lines is None:
            keep_damaged(path, "a new file begins")
        write_file(path, written(lines or [], names))
        experiment.metrics_keys = names


def _drop_cut_line(path: Path) -> None:
    """Remove a last line that a kill or a full disk has cut: the next line would be joined to it."""
    with path.open("r+b") as file:
        text = file.read()
        file.truncate(text.rfind(b"\n") + 1)


class TensorBoard(TensorBoardLogger):
    """Lightning's TensorBoardLogger, but it writes events only: the settings are in the run's config.yaml.

    A resumed fit gives its first step: TensorBoard then hides events of that step and later ones in the older files.
    """

    def __init__(self, folder: Path, first_step: int | None = None) -> None:
        super().__init__(folder, name="", version="", default_hp_metric=False, purge_step=first_step)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        try:
            with disk_errors("run.root", self.log_dir):
                super().log_metrics(metrics, step)
        except ValueError as error:  # Lightning's, for any error
            if isinstance(error.__cause__, OSError):
                raise disk_error("run.root", self.log_dir, error.__cause__) from error
            raise

    @rank_zero_only
    def save(self) -> None:
        with disk_errors("run.root", self.log_dir):
            self.experiment.flush()
