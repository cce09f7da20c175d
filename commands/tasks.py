"""The questions of `evaluate`, each with the answer that is right: of a file, of a public set, or held-out rows."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from commands.prompts import Conversation, conversation, plain
from datamodules.rows.folders import local_files
from datamodules.rows.sources import Source, open_source
from datamodules.text.malformed import MalformedResponse
from datamodules.text.segments import Template, ask
from datamodules.tokens.tokenizer import ThinkTokenizer
from errors import UserError, in_line, suggest
from hub import what_is_there
from lightning_modules.evaluation.baselines import options_in
from visible import SURROGATES

HELD_OUT = "heldout"
ROW = '{"instruction": "Solve x + 5 = 12", "answer": "x = 7"}'
MESSAGES = "messages"


class Columns(NamedTuple):
    """The columns of a set, each with the names that it may have; the first one found is read."""

    question: tuple[str, ...]
    answer: tuple[str, ...] = ("answer",)
    id: tuple[str, ...] = ("id",)
    group: tuple[str, ...] = ("group",)


class PublicSet(NamedTuple):
    """A set on the hub, at a commit."""

    hub_id: str
    config: str | None
    split: str
    revision: str
    columns: Columns
    files: str  # of this part, in a copy of the repository


OWN = Columns((MESSAGES, "instruction", "question", "problem", "prompt"))
PUBLIC = {
    "gsm8k": PublicSet(
        "openai/gsm8k", "main", "test", "740312add88f781978c0658806c59bc2815b9866", Columns(("question",)),
        "main/test-*.parquet",
    ),
    "math500": PublicSet(
        "HuggingFaceH4/MATH-500", None, "test", "6e4ed1a2a79af7d8630a6b768ec859cb5af4d3be",
        Columns(("problem",), id=("unique_id",), group=("subject",)), "test.jsonl",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Question:
    """A question with its right answer. It has messages, or the ids of a prompt that was made before."""

    id: str
    answer: str
    group: str = ""
    messages: Conversation = ()
    ids: tuple[int, ...] = ()
    options: int = 0  # choices that it lists; 0 for none


@dataclass(frozen=True)
class Task:
    """Questions under a name. No two are equal."""

    name: str
    source: str  # in words
    questions: tuple[Question, ...]
    rows: int  # of the source: more than questions if some ask the same

    def first(self, number: int | None) -> "Task":
        """Return the task with its first questions only."""
        if number is None or number >= len(self.questions):
            return self
        return replace(self, questions=self.questions[:number], source=f"the first {number:,} of {self.source}")

    def prompts(self, template: Template, tokenizer: ThinkTokenizer) -> list[list[int]]:
        """Return the ids of each prompt, in the template. Raise UserError if it has no place for the messages."""
        rendered = []
        for one in (one for one in self.questions if not one.ids):
            try:
                rendered.append(ask(one.messages, template))
            except MalformedResponse as error:
                raise UserError("--task", f"question {one.id}", f"cannot be asked: {error}", "change it") from error
        encoded = iter(tokenizer.encode_prompts(rendered))
        return [list(one.ids) if one.ids else next(encoded) for one in self.questions]

    def line(self) -> str:
        """Return what the task is, in one line."""
        rows = f" in {self.rows:,} rows" if self.rows > len(self.questions) else ""
        number = f"{len(self.questions):,} different question{'s' if len(self.questions) != 1 else ''}"
        return f"task {self.name}: {number}{rows}, {self.source}"

    def digest(self) -> str:
        """Return a hash of the questions and their answers."""
        known = [(one.id, one.answer, one.group, one.messages, one.ids) for one in self.questions]
        return hashlib.blake2b(repr(known).encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def read_task(name: str) -> Task:
    """Return the task of a public set or of a file. Raise UserError for one that cannot be read, that lacks a column,
    and for a row without a question or an answer."""
    public = PUBLIC.get(name)
    with _of_task(public):
        if public:
            of_hub = {"config": public.config, "order": "file"}
            source = open_source(public.hub_id, public.revision, public.split, 0.0, 0, **of_hub)  # type: ignore[arg-type]
            words = f"{public.split} of {public.hub_id} at {public.revision[:7]}"
        elif not local_files(name, "test").paths:
            known = ", ".join([*PUBLIC, HELD_OUT])
            fix = suggest(name, [*PUBLIC, HELD_OUT], f"give {known}, or a file with rows like {ROW}")
            raise UserError("--task", name, what_is_there(name), fix)
        else:
            source, words = open_source(name, None, "test", 0.0, 0, order="file"), f"read from {name}"
        questions, rows = _questions(name, source, public.columns if public else OWN)
    return Task(name, words, tuple(questions), rows)


@contextmanager
def _of_task(public: PublicSet | None) -> Iterator[None]:
    """Give errors of a source the name of the option, and those of the hub a way out."""
    try:
        yield
    except UserError as error:
        text = str(error).replace("data.source", "--task")
        if public:
            text = text.replace("set --task DIR", f'give --task "DIR/{public.files}"')
        error.key, error.args = error.key.replace("data.source", "--task"), (text,)
        raise


def _questions(name: str, source: Source, columns: Columns) -> tuple[list[Question], int]:
    """The different questions, and the number of rows."""
    found: dict[Conversation, tuple[str, Question]] = {}
    ids: dict[str, str] = {}
    number = 0
    for number, one in enumerate(source.rows(), 1):
        place = f"row {number}"
        if number == 1:
            _check_columns(name, one.row, columns)
        try:
            question = _question(one.row, columns, str(one.place))
        except ValueError as error:
            raise UserError("--task", name, f"{place} {error}", f"write rows like {ROW}") from error
        if question.id in ids:
            problem = f"{place} has the id {question.id!r} of {ids[question.id]}"
            raise UserError("--task", name, problem, "give each question an id of its own, or none")
        ids[question.id] = place
        earlier, same = found.setdefault(question.messages, (place, question))
        if same.answer != question.answer:
            problem = f"{place} asks what {earlier} asks, and has another answer"
            raise UserError("--task", name, problem, "remove one of them")
    if not found:
        raise UserError("--task", name, "has no rows", f"write rows like {ROW}")
    return [question for _, question in found.values()], number


def _check_columns(name: str, row: dict[str, Any], columns: Columns) -> None:
    for kind, names in (("question", columns.question), ("answer", columns.answer)):
        if not any(one in row for one in names):
            wanted = " or ".join(one for one in names if one != "prompt")
            problem = f"has no column {wanted} for the {kind}; it has {in_line(map(str, row), 8) or 'none'}"
            raise UserError("--task", name, problem, "rename one")


def _question(row: dict[str, Any], columns: Columns, place: str) -> Question:
    """Raises ValueError with what is wrong with a row."""
    key = next((one for one in columns.question if row.get(one) not in (None, "", [])), columns.question[-1])
    if key == MESSAGES:
        messages = conversation({MESSAGES: row[key]})
    elif not isinstance(text := row.get(key), str) or not text.strip():
        raise ValueError("has no question")
    elif SURROGATES.search(text):
        raise ValueError("has a question that is not valid UTF-8")
    else:
        messages = plain(text)
    answer = _first(row, columns.answer)
    if isinstance(answer, bool) or not isinstance(answer, str | int | float) or not str(answer).strip():
        raise ValueError("has no answer")
    given = _first(row, columns.id)
    group = _first(row, columns.group)
    name, options = place if given is None else str(given), options_in(messages[-1].text)
    return Question(name, str(answer), "" if group is None else str(group), messages, options=options)


def _first(row: dict[str, Any], names: Sequence[str]) -> Any:
    return next((row[one] for one in names if row.get(one) is not None), None)
