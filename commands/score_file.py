"""Responses that another engine wrote, judged as our own: read from JSON lines, with the tags of thoughts as text."""

import json
import re
from pathlib import Path
from typing import Any

from commands.answer_task import judged
from commands.tasks import OWN, Question, Task
from datamodules.text.code import split_at_tags
from datamodules.text.tags import Tags
from disk import digest
from errors import UserError
from lightning_modules.evaluation.answer_file import KIND, AnswerFile
from lightning_modules.generation.think_response import ThinkResponse

RESPONSES = ("response", "text", "output")
LINE = '{"id": "0", "response": "<think>…</think>x = 7"}'
END_TOKEN = re.compile(r"\s*(?:<\|[a-z_]+\|>|</s>)\s*\Z")  # left by an engine that does not skip it


def score_file(name: str, task: Task, tags: Tags, to: str | None) -> tuple[AnswerFile, int]:
    """Judge the responses of a file. Return the file with the verdicts, and the number of questions without a response.

    A line has the `id` of a question or its text, and the response; further lines of a question are further samples.
    `finished: false` or a `finish_reason` other than stop marks a response that was cut off. Raise UserError for a line
    that is none, or that belongs to no question of the task.
    """
    path = Path(name).expanduser()
    responses = _read(path, task, tags)
    header = {"task": task.name, "questions": task.digest(), "responses": digest(path), "tags": [tags.open, tags.close]}
    file = AnswerFile(Path(to).expanduser() if to else path.with_name(f"{path.stem}-judged.jsonl"), header)
    for question, sample, written in responses:
        if (question.id, sample) not in file.answers:
            file.add(judged(question, sample, written))
    return file, len(task.questions) - len({question.id for question, _, _ in responses})


def response_of(text: str, finished: bool, tags: Tags = Tags()) -> ThinkResponse:  # noqa: B008 (frozen)
    """Return a response whose tags are text, in the parts that `parse_response` finds by ids. A tag in code is text."""
    if end := END_TOKEN.search(text):
        text = text[: end.start()]
    split, _ = split_at_tags(text, tags)
    thoughts: list[str] = []
    balanced, opened = True, False
    inside, answer = "", split[0]  # the text of an open thought, and all text after the last closing tag
    for tag, following in zip(split[1::2], split[2::2], strict=True):
        if tag == tags.open:
            balanced &= not opened and not answer.strip()
            opened, inside, answer = True, following, f"{answer}{tag}{following}"
        else:
            balanced &= opened
            thoughts += [inside] if opened else []
            opened, answer = False, following
    return ThinkResponse(text, tuple(thoughts), answer, finished, balanced and not opened, in_thought=opened)


def _read(path: Path, task: Task, tags: Tags) -> list[tuple[Question, int, ThinkResponse]]:
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError("--score", path, f"cannot be read ({reason})", f"give lines like {LINE}") from error
    by_id = {one.id: one for one in task.questions}
    by_text = {one.messages[-1].text: one for one in task.questions if len(one.messages) == 1}
    samples: dict[str, int] = {}
    found = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
            if not isinstance(value, dict):
                raise ValueError("it is no object")
            if number == 1 and KIND in value:  # the header of an evaluation, to judge it again
                continue
            question = _question(value, by_id, by_text)
            text = next((value[one] for one in RESPONSES if isinstance(value.get(one), str)), None)
            if text is None:
                raise ValueError(f"it has no {' or '.join(RESPONSES)}")
        except (ValueError, RecursionError) as error:
            problem = f"line {number} cannot be scored: {error}"
            raise UserError("--score", path, problem, f"write lines like {LINE}") from error
        sample = samples.get(question.id, 0)
        samples[question.id] = sample + 1
        finished = bool(value.get("finished", value.get("finish_reason", "stop") in ("stop", None)))
        found.append((question, sample, response_of(text, finished, tags)))
    if not found:
        raise UserError("--score", path, "has no responses", f"write lines like {LINE}")
    return found


def _question(value: dict[str, Any], by_id: dict[str, Question], by_text: dict[Any, Question]) -> Question:
    """Raises ValueError if the line belongs to no question."""
    if value.get("id") is not None:
        name = str(value["id"])
        if name not in by_id:
            raise ValueError(f"the task has no question with the id {name!r}")
        return by_id[name]
    text = next((value[one] for one in OWN.question if isinstance(value.get(one), str)), None)
    if text is None:
        raise ValueError("it has neither an id nor an instruction")
    if text not in by_text:
        raise ValueError("the task does not ask this")
    return by_text[text]
