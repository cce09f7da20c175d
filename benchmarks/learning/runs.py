"""A run: one arm of a study with one seed, trained by `fit` and then asked the test questions by `evaluate`."""

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.learning.jobs import Command
from benchmarks.learning.rows import HELD_OUT, LONGEST, Pool, as_args
from benchmarks.learning.studies import ACCUMULATE, Arm, Study
from hub import CHECKOUT
from lightning_modules.evaluation.answer_file import read_answers
from lightning_modules.run.folder import Run, find_runs

CONFIG = CHECKOUT / "configs" / "smollm2.yaml"
Curve = Mapping[int, Mapping[str, float]]  # optimizer step -> figures


@dataclass(frozen=True)
class Planned:
    """A run that is wanted: `folder` is the benchmark's."""

    study: Study
    arm: Arm
    seed: int
    folder: Path

    @property
    def name(self) -> str:
        return f"{self.study.name}-{self.arm.slug}-{self.seed}"

    @property
    def answers(self) -> Path:
        return self.folder / "answers" / f"{self.name}.jsonl"

    def trained(self) -> Run | None:
        """Return the finished run, if there is one."""
        return next((run for run in self._runs() if "after" in run.read_summary()), None)

    def done(self) -> bool:
        summary = self.answers.with_name(f"{self.answers.stem}.summary.json")
        return self.trained() is not None and (not self.study.asks or summary.is_file())

    def commands(self, base: str, pool: Pool, gpu: bool) -> Iterator[Command]:
        """Yield the commands that are missing, `fit` and then `evaluate`. A stopped one continues."""
        log = self.folder / "logs" / f"{self.name}.log"
        if self.trained() is None:
            stopped = next((run for run in self._runs() if run.last.is_file()), None)
            more = ["--ckpt_path", str(stopped.last)] if stopped else []
            yield Command([*self._fit(base, pool, gpu), *more], log)
        if self.study.asks:
            yield Command(self.asking(), log)

    def asking(self) -> list[str]:
        """Return the command line that asks the trained model the test questions."""
        run = self.trained()
        assert run is not None, "a fit without error has a summary"
        task = ["--task", str(self.folder / "questions.jsonl"), "--max_new_tokens", str(LONGEST)]
        return ["evaluate", "--run", str(run.folder), *task, "--to", str(self.answers)]

    def _fit(self, base: str, pool: Pool, gpu: bool) -> list[str]:
        step_tokens = int(yaml.safe_load(CONFIG.read_text(encoding="utf-8"))["data"]["tokens_per_step"])
        steps = self.study.steps(self.arm, step_tokens)
        micro_batches = int(self.arm.settings.get(ACCUMULATE, 1))
        settings = {
            "seed_everything": self.seed,
            "run.root": self.folder / "runs",
            "run.name": self.name,
            "model.name": base,
            "model.revision": "null",
            "model.evaluation.rows": 0,
            "data.source": pool.write(self.arm.rows, self.folder / "rows"),
            "data.revision": "null",
            "data.order": "file",  # the same validation rows for every arm
            "data.heldout_ratio": HELD_OUT,
            "data.max_length": self.arm.rows.cut or LONGEST,  # else the rows are chosen by their length
            "data.near_duplicate_threshold": "null",  # already dropped
            "data.train_rows": "null",
            "data.val_rows": "null",
            "data.num_proc": 1,
            "data.cache_dir": self.folder / "prepared",
            "trainer.max_epochs": -1,
            "trainer.max_steps": steps,
            "trainer.check_val_every_n_epoch": "null",
            "trainer.val_check_interval": max(1, steps // self.study.validations) * micro_batches,
            "trainer.log_every_n_steps": max(1, steps // 20),
            "trainer.enable_progress_bar": False,
        } | ({"trainer.accelerator": "gpu"} if gpu else {})
        return ["fit", "--config", str(CONFIG), *as_args(settings | dict(self.arm.settings))]

    def _runs(self) -> Iterator[Run]:
        return find_runs(str(self.folder / "runs"), self.name)

    def read(self) -> dict[str, Any] | None:
        """Return what the report needs; None if the run is not finished."""
        run = self.trained()
        if run is None or not self.done():
            return None
        summary = run.read_summary()
        found = {
            "folder": str(run.folder),
            "curve": read_curve(run.folder / "metrics.csv"),
            "training": summary["training"],
            "val_rows": summary["data"]["digests"]["val"],
            "environment": json.loads((run.folder / "environment.json").read_text(encoding="utf-8")),
        }
        return found | ({"answers": answers_of(self.answers)} if self.study.asks else {})


def answers_of(path: Path) -> dict[str, dict[str, Any]]:
    """Return the answers in a file of `evaluate`, by the id of their question, without their thoughts."""
    kept = ("right", "rung", "finished", "well_formed", "thoughts", "tokens", "looped", "contradicted", "answer",
            "reference", "options")  # fmt: skip
    found = read_answers(path, "--out").answers.values()
    return {one["id"]: {key: one[key] for key in kept if key in one} for one in found}


def read_curve(path: Path, having: str = "val/loss") -> Curve:
    """Return the last validation of each step, from metrics.csv."""
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        lines = [line for line in csv.DictReader(file) if line.get(having)]
    return {
        int(line["step"]): {name.removeprefix("val/"): float(value) for name, value in line.items() if value}
        for line in lines
    }
