"""Callbacks that write to the run folder: facts of the start, sample answers, predictions, and how to resume."""

import json
import logging
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only

from disk import disk_errors, writing
from errors import UserError
from lightning_modules.evaluation.samples import samples_of
from lightning_modules.run.fit_data import FitData
from lightning_modules.run.folder import Run

log = logging.getLogger("thinkwright")


class RunStart(Callback):
    """Gives all ranks the run folder, and writes facts of the data to it.

    Only the first rank knows the folder if torchrun or SLURM started the ranks. `write_start`, if given, is called once
    no check can refuse the fit any more.
    """

    def __init__(self, run: Run, write_start: Callable[[], None] | None = None) -> None:
        self.run, self.write_start = run, write_start

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Raise UserError on a machine without the folder: it could not load the best checkpoint."""
        folder, made = trainer.strategy.broadcast((str(self.run.folder), self.run.folder.is_dir()))
        self.run.folder = Path(folder)
        if made and not self.run.folder.is_dir():
            fix = "give a folder on a file system that all machines share"
            raise UserError("run.root", folder, "does not exist on every machine", fix)

    @rank_zero_only
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.write_start is not None:
            self.write_start()
        data: FitData = trainer.datamodule  # type: ignore[attr-defined]
        assert data.epochs is not None
        facts = {"identity": data.identity(), "epochs": data.epochs.figures()}
        self.run.update_summary(data=asdict(data.stats) | facts)


class SampleTable(Callback):
    """Adds some of the model's answers to held-out rows to samples.md, at each validation."""

    def __init__(self, run: Run) -> None:
        self.run = run

    @rank_zero_only
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        tuner: Any = pl_module
        if not tuner.answered or trainer.sanity_checking:
            return
        text = samples_of(tuner.answered, trainer.global_step, tuner.evaluation.samples)
        with disk_errors("run.root", self.run.samples), self.run.samples.open("a", encoding="utf-8") as file:
            file.write(text)


class ResumeHint(Callback):
    """Prints the option that resumes training when it is stopped or fails."""

    def __init__(self, run: Run) -> None:
        self.run = run

    @rank_zero_only
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if isinstance(exception, UserError):
            return  # its message has a way out
        step = trainer.global_step
        if self.run.last.is_file():
            log.info(f"stopped at step {step}; to resume, add --ckpt_path {self.run.last} to the same command")
        else:
            log.info(f"stopped at step {step}, before the first checkpoint (checkpoint.every_n_train_steps)")


class WritePredictions(Callback):
    """Writes the answers of `predict` to a new file in the run folder, one JSON object per row."""

    def __init__(self, run: Run) -> None:
        self.run = run

    @rank_zero_only
    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        tuner: Any = pl_module
        path = self.run.folder / f"predictions-{datetime.now():%Y-%m-%d_%H-%M-%S}.jsonl"
        with disk_errors("run.root", path), writing(path) as file:
            file.writelines(json.dumps(row.as_json(), ensure_ascii=False).encode() + b"\n" for row in tuner.answered)
        log.info(f"{len(tuner.answered):,} answers in {path}")
