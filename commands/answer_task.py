"""One model answers the questions of a task, each answer is judged as it ends, and goes to a file."""

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from commands.generate import responses_of_vllm
from commands.load import Opened
from commands.tasks import Question, Task
from disk import digest, disk_errors
from lightning_modules.evaluation.answer_file import AnswerFile
from lightning_modules.evaluation.failures import failures_of
from lightning_modules.generation.decoding import Decoding, DecodingSettings
from lightning_modules.generation.generate import generate
from lightning_modules.generation.think_response import ThinkResponse
from lightning_modules.generation.token_choice import Request
from lightning_modules.judge.judge import judge
from lightning_modules.run.progress_line import AnswerProgress, ProgressLine

log = logging.getLogger("thinkwright")
CUT_OFF = "cut off"  # the rung of a response that did not end


@dataclass(frozen=True)
class Asking:
    """How questions are asked."""

    settings: DecodingSettings
    samples: int  # answers to each question
    seed: int
    rows: int | None  # most sequences that are written at once; None: as many as pay
    device: torch.device
    vllm: bool = False  # vLLM writes, with the export of the run

    def sample_seed(self, question: Question, sample: int) -> int:
        """Return the seed of a sample. It depends on nothing else, so an evaluation can stop and go on anywhere."""
        text = f"{self.seed}\0{sample}\0{question.id}".encode("utf-8", "surrogatepass")
        return int.from_bytes(hashlib.blake2b(text, digest_size=7).digest(), "big")


@dataclass(frozen=True)
class Contestant:
    """A model with the prompts of a task."""

    name: str  # of its column in the table
    opened: Opened
    trained: bool  # False: the base, before training
    task: Task
    prompts: Sequence[Sequence[int]]

    @property
    def prompts_digest(self) -> str:
        return _digest([list(ids) for ids in self.prompts])

    def header(self, asking: Asking) -> dict[str, Any]:
        """Return what decides the answers."""
        tuner = self.opened.tuner
        with disk_errors("--ckpt_path", self.opened.checkpoint):
            checkpoint = digest(self.opened.checkpoint) if self.trained else "none: the base before training"
        engine = {"engine": "vllm"} if asking.vllm else {}
        return {
            **engine,
            "task": self.task.name,
            "questions": self.task.digest(),
            "prompts": self.prompts_digest,
            "base": tuner.name,
            "weights": _digest(tuner.identity.values()),
            "checkpoint": checkpoint,
            "decoding": asdict(asking.settings),
            "samples": asking.samples,
            "seed": asking.seed if asking.settings.temperature > 0 else None,
        }

    def default_file(self, header: dict[str, Any]) -> Path:
        """Return the place of the answers: another one for each other header."""
        name = f"{Path(self.task.name).stem}{'' if self.trained else '-base'}-{_digest(header)[:8]}.jsonl"
        return self.opened.run.folder / "evaluations" / name

    def answer(self, file: AnswerFile, asking: Asking) -> None:
        """Write the answers that a file lacks, each as soon as it ends. If none is missing, no model is loaded."""
        wanted = [
            (question, sample, list(ids))
            for question, ids in zip(self.task.questions, self.prompts, strict=True)
            for sample in range(asking.samples)
        ]
        missing = [one for one in wanted if (one[0].id, one[1]) not in file.answers]
        there = len(wanted) - len(missing)
        if there:
            log.info(f"{self.name}: {there:,} of {len(wanted):,} answers were in {file.path}")
        if not missing:
            return
        requests = [Request(ids, asking.sample_seed(question, sample)) for question, sample, ids in missing]
        line = ProgressLine()
        responses: Iterator[tuple[int, ThinkResponse]]
        try:
            if asking.vllm:
                responses = enumerate(responses_of_vllm(self.opened, requests, asking.settings))
            else:
                progress = AnswerProgress(self.name, len(wanted), asking.settings.max_new_tokens, line, there)
                responses = self._responses(asking, requests, progress)
            for number, written in responses:
                question, sample, _ = missing[number]
                file.add(judged(question, sample, written))
        except KeyboardInterrupt:
            line.close()
            log.warning(
                f"stopped: {len(file.answers):,} of {len(wanted):,} answers are in {file.path}; "
                "the same command goes on from there"
            )
            raise
        finally:
            line.close()
            self.opened.tuner.net = None  # the next model needs its memory

    def _responses(
        self, asking: Asking, requests: Sequence[Request], progress: AnswerProgress
    ) -> Iterator[tuple[int, ThinkResponse]]:
        """Load the model, and yield (number of the request, its response)."""
        tuner = self.opened.load(self.trained).tuner.to(asking.device)
        assert tuner.net is not None
        sampling = asking.settings.temperature > 0
        decoding = Decoding.of(tuner.tokenizer, tuner.generation_config, asking.settings, confidence=sampling)
        yield from generate(tuner.net, tuner.tokenizer, requests, decoding, rows=asking.rows, progress=progress)


def judged(question: Question, sample: int, written: ThinkResponse) -> dict[str, Any]:
    """Return the line of an answer, with its verdict. A response that did not end is never right."""
    right, rung = False, CUT_OFF
    if written.finished:
        verdict = judge(written.answer, question.answer)
        right, rung = verdict.right, verdict.rung
    failures = failures_of(written).marks()
    del failures["cut"]  # `finished` says it
    answer = {
        "id": question.id,
        "sample": sample,
        "right": right,
        "rung": rung,
        "answer": written.answer.strip(),
        "reference": question.answer,
        "group": question.group,
        "finished": written.finished,
        "well_formed": written.well_formed,
        "thoughts": len(written.thoughts),
        "tokens": written.tokens or None,  # not known of another engine's text
        "thinking_tokens": written.thinking_tokens if written.tokens else None,
        "ended_by": written.ended_by,
        **failures,
        "options": question.options or None,
        "confidence": None if written.confidence is None else round(written.confidence, 6),
        "text": written.text,
    }
    return {name: value for name, value in answer.items() if value is not None}


def _digest(value: Any) -> str:
    return hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=8).hexdigest()
