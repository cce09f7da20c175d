"""A run of TRL beside ours: peer.py trains and answers in TRL's own Python, and our judge scores the answers."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.learning.jobs import Command
from benchmarks.learning.rows import LONGEST, Pool
from benchmarks.learning.runs import CONFIG, Planned, answers_of
from disk import write_file


@dataclass(frozen=True)
class PeerRun:
    """TRL on the rows of `ours`, with its steps, rate and seed. `tokens`: the tags are added tokens, else text."""

    ours: Planned
    tokens: bool
    python: Path | None  # an interpreter with TRL

    @property
    def arm(self) -> str:
        return f"TRL, tags as {'tokens' if self.tokens else 'text'}"

    @property
    def name(self) -> str:
        return f"trl-{'tokens' if self.tokens else 'text'}-{self.ours.seed}"

    @property
    def answers(self) -> Path:
        return self.ours.folder / "answers" / f"{self.name}.jsonl"

    @property
    def result(self) -> Path:
        return self.ours.folder / "peers" / f"{self.name}.json"

    def done(self) -> bool:
        return self.result.is_file() and self.answers.with_name(f"{self.answers.stem}.summary.json").is_file()

    def commands(self, base: str, pool: Pool) -> Iterator[Command]:
        """Yield the commands that are missing: training with answering, then judging."""
        folder, log = self.ours.folder, self.ours.folder / "logs" / f"{self.name}.log"
        responses = self.result.with_suffix(".responses.jsonl")
        if not self.result.is_file():
            config = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
            places = {"rows": pool.choose(self.ours.arm.rows), "val": pool.val}
            task: dict[str, Any] = {
                "base": base, "seed": self.ours.seed, "tokens": self.tokens, "max_new_tokens": LONGEST,
                "steps": self.ours.study.steps(self.ours.arm, int(config["data"]["tokens_per_step"])),
                "rate": float(config["model"]["optim"]["lr"]), "questions": str(folder / "questions.jsonl"),
                "responses": str(responses), "result": str(self.result),
            }  # fmt: skip
            for name, chosen in places.items():
                path = self.result.with_suffix(f".{name}.jsonl")
                write_file(path, "".join(pool.lines[k] + "\n" for k in chosen))
                task[name] = str(path)
            given = self.result.with_suffix(".task.json")
            write_file(given, json.dumps(task, indent=1))
            yield Command(["-m", "benchmarks.learning.peer", str(given)], log, self.python)
        scored = ["--task", str(folder / "questions.jsonl"), "--score", str(responses), "--to", str(self.answers)]
        yield Command(["evaluate", *scored], log)

    def read(self) -> dict[str, Any] | None:
        """Return what the report needs; None if the run is not finished."""
        if not self.done():
            return None
        result = json.loads(self.result.read_text(encoding="utf-8"))
        curve = {0: {}, 1: {"loss_answer": result["loss_answer"]}}
        training = {key: result[key] for key in ("train_seconds", "peak_memory_gb")}
        return {"curve": curve, "training": training, "answers": answers_of(self.answers)}
