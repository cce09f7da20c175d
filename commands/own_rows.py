"""From the answers that `evaluate` wrote to rows that `fit` takes."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from commands.tasks import Question, Task
from datamodules.layouts.conversation import Message
from datamodules.text.malformed import MalformedPolicy, MalformedResponse
from datamodules.text.response import parse
from datamodules.text.tags import Tags
from disk import disk_errors, writing
from lightning_modules.evaluation.answer_file import Answers
from lightning_modules.evaluation.own_answers import OwnAnswer, Selection, SelectionSettings, select

STRICT = MalformedPolicy.of("strict", None)


def write_rows(task: Task, answers: Answers, path: Path, tags: Tags, settings: SelectionSettings) -> Selection:
    """Write the answers that are worth learning as rows with `messages`; return the selection."""
    questions = {one.id: one for one in task.questions}
    found: dict[str, list[OwnAnswer]] = {}
    for one in answers.answers.values():
        own = OwnAnswer(one["id"], one["text"], one["tokens"], one["right"], one["well_formed"])
        found.setdefault(own.question, []).append(own)
    selection = select(found, settings, lambda text: reads_back(text, tags))
    with disk_errors("--to", path), writing(path) as file:
        for number, chosen in enumerate(selection.chosen):
            row = {"id": f"{chosen.question}/{number}", "messages": messages(questions[chosen.question], chosen)}
            file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
    return selection


def messages(question: Question, answer: OwnAnswer) -> list[Mapping[str, Any]]:
    """Return the conversation of a row: the question's messages, then the answer with its think tags."""
    return [*map(_as_json, question.messages), {"role": "assistant", "content": answer.text}]


def _as_json(message: Message) -> Mapping[str, Any]:
    shown = {"role": message.role, "content": message.text}
    return shown | ({"reasoning_content": message.reasoning} if message.reasoning else {})


def reads_back(text: str, tags: Tags) -> bool:
    """Return whether a response that the model wrote is read as thoughts and an answer, without any repair."""
    try:
        passages, notes = parse(text, tags, STRICT)
    except MalformedResponse:
        return False
    return not notes and passages[0].thought and not passages[-1].thought
