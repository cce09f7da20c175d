"""What a run leaves behind while it trains: what it is made of, samples of its answers, its metrics."""

import json
import logging
import os
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from datamodules.same_rows import identity
from errors import UserError
from lightning_modules.evaluation.summary import SAMPLES
from lightning_modules.evaluation.think_scores import AnsweredRow
from lightning_modules.ranks import from_all_ranks
from lightning_modules.run.folder import Run

log = logging.getLogger("thinkwright")


class RunStart(Callback):
    """Has all ranks know the run's folder, and writes there what training began with.

    Ranks that torchrun or SLURM started do not know which folder the first one made. `keep` writes what is only to be
    written once nothing can be refused any more.
    """

    def __init__(self, run: Run, keep: Callable[[], None] | None = None) -> None:
        self.run, self.keep = run, keep

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Raises UserError on a machine that does not see the folder: it could not load the best checkpoint."""
        folder, made = trainer.strategy.broadcast((str(self.run.folder), self.run.folder.is_dir()))
        self.run.folder = Path(folder)
        if made and not self.run.folder.is_dir():
            problem = "is not seen by all machines"
            raise UserError("run.root", folder, problem, "give a folder on a file system that they share")

    @rank_zero_only
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.keep is not None:
            self.keep()
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        known = {"identity": identity(data), "epochs": data.epochs.figures()}
        self.run.update_summary(data=asdict(data.stats) | known)


class SampleTable(Callback):
    """Adds to samples.md, at each validation, what the model wrote for a few held-out rows."""

    def __init__(self, run: Run) -> None:
        self.run = run

    @rank_zero_only
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        answered: list[AnsweredRow] = pl_module.answered[:SAMPLES]  # type: ignore[assignment, index]
        if not answered:
            return
        with self.run.samples.open("a", encoding="utf-8") as file:
            file.write(f"## Step {trainer.global_step}\n\n")
            for row in answered:
                verdict = "right" if row.matches else "not the reference's answer"
                file.write(f"### Row {row.row} ({verdict})\n\n")
                for title, text in (
                    ("Given", row.prompt),
                    ("Written", row.written.text),
                    ("Reference", row.reference.text),
                ):
                    file.write(f"{title}:\n\n{_block(text)}\n\n")


def _block(text: str) -> str:
    """An indented block of Markdown, which no text inside can end."""
    return "\n".join("    " + line for line in text.splitlines() or [""])


class ResumeHint(Callback):
    """Says how to go on when training is stopped or breaks."""

    def __init__(self, run: Run) -> None:
        self.run = run

    @rank_zero_only
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if isinstance(exception, UserError):
            return  # its own text says what to do
        if self.run.last.is_file():
            log.info(
                f"stopped at step {trainer.global_step}; the same command with --ckpt_path {self.run.last} goes on"
            )
        else:
            log.info(f"stopped at step {trainer.global_step}, before the first checkpoint (checkpoint.every_n_steps)")


class WritePredictions(Callback):
    """Writes what `predict` wrote into a new file of the run, a JSON object for each row."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.written: list[dict[str, Any]] = []

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self.written += outputs

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        written = sorted(from_all_ranks(self.written), key=lambda row: row["row"])
        if trainer.is_global_zero:
            path = self.run.folder / f"predictions-{datetime.now():%Y-%m-%d_%H-%M-%S}.jsonl"
            with path.open("x", encoding="utf-8") as file:
                file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in written)
            log.info(f"{len(written):,} answers in {path}")


class MetricsCsv(CSVLogger):
    """Lightning's CSVLogger, writing `metrics.csv` at once and keeping what a continued run had there."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, name="", version="", flush_logs_every_n_steps=1)

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        if self._experiment is not None:
            return self._experiment
        path, aside = (Path(self.log_dir) / name for name in ("metrics.csv", "metrics.csv.kept"))
        if path.exists():
            os.replace(path, aside)  # Lightning deletes an existing file
        experiment: Any = super().experiment
        if aside.exists():
            os.replace(aside, path)
            with path.open() as file:
                experiment.metrics_keys = file.readline().strip().split(",")
        return experiment


class TensorBoard(TensorBoardLogger):
    """Lightning's TensorBoardLogger, writing events only: the run's settings are in its config.yaml."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, name="", version="", default_hp_metric=False)

    @rank_zero_only
    def save(self) -> None:
        self.experiment.flush()
