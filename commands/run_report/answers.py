"""The answers of a run's evaluations, and the samples of its validations, as its files have them."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

KIND = "evaluation"  # the first key of the first line, as in lightning_modules/evaluation/answer_file.py
BASE = "none"  # the beginning of the checkpoint of the model before training
NUMBERS = ("tokens", "thoughts")
LONGEST = 3_000  # characters of a text that the page shows


@dataclass(frozen=True)
class Answer:
    """One answer to a question. What its line lacks is None or empty."""

    question: str
    sample: int
    right: bool
    tokens: int | None = None
    thoughts: int | None = None
    well_formed: bool | None = None
    text: str = ""
    reference: str = ""


@dataclass(frozen=True)
class Evaluation:
    """The file of an evaluation."""

    name: str  # of the file, without its end
    header: Mapping[str, Any]
    answers: list[Answer] = field(default_factory=list)

    @property
    def of_base(self) -> bool:
        """Whether the model before training answered."""
        return str(self.header.get("checkpoint", "")).startswith(BASE)

    def asks_as(self, other: "Evaluation") -> bool:
        """Whether both asked the same questions in the same way."""
        return all(self.header.get(key) == other.header.get(key) for key in ("questions", "decoding", "samples"))

    def verdicts(self) -> dict[str, list[bool]]:
        """Return for each question whether its answers are right, by sample."""
        found: dict[str, list[bool]] = {}
        for one in sorted(self.answers, key=lambda one: one.sample):
            found.setdefault(one.question, []).append(one.right)
        return found


@dataclass(frozen=True)
class Sample:
    """A held-out row that the model answered at a validation."""

    step: int
    row: str
    verdict: str
    given: str
    written: str
    reference: str


def read_evaluation(path: Path) -> tuple[Evaluation | None, str | None]:
    """Return the evaluation in a file, None if it is none, and a sentence about its faults. Raises OSError.

    A last line without its end is still being written, or was cut by a kill: it is left out without a word.
    """
    first, *lines = path.read_bytes().split(b"\n")[:-1] or [b""]
    header = _object(first)
    if header is None or KIND not in header:
        return None, f"evaluations/{path.name} is not the file of an evaluation"
    answers = [_answer(_object(line)) for line in lines]
    known = [one for one in answers if one is not None]
    faults = len(answers) - len(known)
    said = f"evaluations/{path.name} has {faults:,} damaged lines, which are left out" if faults else None
    return Evaluation(path.stem, header, known), said


def read_samples(text: str) -> list[Sample]:
    """Return the samples in the text of a samples.md, by step. If a step stands twice, the later one counts."""
    found: dict[tuple[int, str], Sample] = {}
    step: int | None = None
    row, texts, title = re.match("", ""), {}, ""  # type: ignore[var-annotated]

    def keep() -> None:
        if step is not None and row and {"Given", "Written"} <= texts.keys():
            parts = ("\n".join(texts.get(name, [])) for name in ("Given", "Written", "Reference"))
            found[step, row[1]] = Sample(step, row[1], row[2], *parts)

    for line in text.split("\n"):
        if line.startswith("    "):
            texts.setdefault(title, []).append(line[4:])
            continue
        if line.startswith("#"):
            keep()
            texts, title = {}, ""
            if heading := re.fullmatch(r"## Step (\d{1,15})", line):
                step, row = int(heading[1]), None
            else:
                row = re.fullmatch(r"#{3,4} Row (.{1,100}?) \((.*)\)", line)
        elif line.endswith(":"):
            title = line[:-1]
    keep()
    return sorted(found.values(), key=lambda one: one.step)


def shortened(text: str) -> str:
    """Return the beginning of a long text, with the number of characters that are left out."""
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}… ({len(text) - LONGEST:,} more characters)"


def _answer(line: Mapping[str, Any] | None) -> Answer | None:
    """The answer in a line; None if the line has no question, number and verdict."""
    if line is None or not isinstance(line.get("id"), str):
        return None
    sample, right = line.get("sample"), line.get("right")
    if not isinstance(right, bool) or not isinstance(sample, int):
        return None
    counts = {name: line.get(name) for name in NUMBERS}
    numbers = {name: one if isinstance(one, int) and 0 <= one < 2**53 else None for name, one in counts.items()}
    formed = line.get("well_formed")
    texts = {name: shortened(str(line.get(name) or "")) for name in ("text", "reference")}
    return Answer(
        line["id"], sample, right, numbers["tokens"], numbers["thoughts"], formed, texts["text"], texts["reference"]
    )


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
