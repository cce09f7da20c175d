"""From the answers that `evaluate` wrote to rows that `fit` takes."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datamodules.text.malformed import MalformedPolicy, MalformedResponse
from datamodules.text.response import parse
from datamodules.text.tags import Tags
from disk import disk_errors, writing
from errors import UserError
from lightning_modules.evaluation.own_answers import OwnAnswer, Selection, SelectionSettings, select

STRICT = MalformedPolicy.of("strict", None)


def read_answers(path: Path) -> dict[str, list[OwnAnswer]]:
    """Return the answers of a file of `evaluate`, by question. Raise UserError for a file that is none."""
    questions: dict[str, list[OwnAnswer]] = {}
    for number, one in _objects(path):
        if "answer" not in one and "response" not in one:
            continue  # the line of settings
        try:
            facts = {"instruction": one["instruction"], "question": one["id"]}
            own = OwnAnswer(one["response"], one["tokens"], one["right"], one["well_formed"], facts)
            questions.setdefault(str(one["id"]), []).append(own)
        except KeyError as error:
            raise UserError(
                "--task", path, f"line {number} has no {error}", "delete the file, it is made again"
            ) from error
    return questions


def _objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with disk_errors("--to", path), path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            yield number, json.loads(line)


def write_rows(answers: Path, rows: Path, tags: Tags, settings: SelectionSettings) -> Selection:
    """Write the answers that are worth learning as rows with `instruction` and `response`; return the selection."""
    selection = select(read_answers(answers), settings, lambda text: reads_back(text, tags))
    with disk_errors("--to", rows), writing(rows) as file:
        for number, one in enumerate(selection.chosen):
            row = {"id": f"{one.facts['question']}/{number}", "instruction": one.facts["instruction"]}
            file.write(json.dumps(row | {"response": one.text}, ensure_ascii=False).encode() + b"\n")
    return selection


def reads_back(text: str, tags: Tags) -> bool:
    """Return whether a response that the model wrote is read as thoughts and an answer, without any repair."""
    try:
        passages, notes = parse(text, tags, STRICT)
    except MalformedResponse:
        return False
    return not notes and passages[0].thought and not passages[-1].thought
