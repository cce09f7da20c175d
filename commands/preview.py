"""preview: the data of a config, as the model would see it. No model is loaded, and nothing is prepared or cached."""

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import Any, TextIO

from jsonargparse import ActionConfigFile, set_parsing_settings  # type: ignore[attr-defined]  # it is exported
from rich.console import Console
from tqdm import tqdm

from commands.parsing import Complaint, Groups, Parser, explain, only_what_matters
from commands.preflight import config_files
from datamodules.magpie import MagpieDataModule
from datamodules.preview import terminal as preview
from datamodules.preview.html import page
from datamodules.preview.terminal import Row
from datamodules.text.segments import Role
from errors import UserError
from lightning_modules.run.folder import RunSettings, find_runs

A_LOOK = 2_000  # rows: seconds
MATTERS: Groups = {"data": None, "model": ("name", "revision")}
ROLES = ", ".join(f"{role.value} {name}" for role, name in zip(Role, preview.LABELS, strict=True))


def build_parser() -> Parser:
    parser = Parser(
        prog="cli.py preview",
        description="Look at the data of a config as the model sees it; loads no model. Takes the configs of fit, of "
        "which only data, model.name and model.revision matter here; without one, that of the newest run.",
    )
    parser.add_argument("-c", "--config", action=ActionConfigFile, help="A config of fit; of several the later wins.")
    parser.add_argument("--rows", type=int, default=3, help="Examples that are shown.")
    parser.add_argument(
        "--row",
        type=str | None,
        default=None,
        help="Explain one row instead, by its position among the rows read, from 0, or by its id: what the source has, "
        "what was found in it, its steps, its tokens.",
    )
    parser.add_argument("--html", type=str | None, default=None, help="Write a page that opens without network, too.")
    parser.add_argument(
        "--jsonl",
        type=str | None,
        default=None,
        help="Write all that becomes of every row, one object a line: row (its position), row_id, source, split, "
        f"instruction, thoughts, answer, input_ids, roles ({ROLES}), notes, and the reason why it is left out, or "
        "null. Rows of a split that has all it wants are passed over.",
    )
    parser.add_argument(
        "--limit",
        type=str | None,
        default="auto",
        help=f"Rows looked at. null takes all that fit would; auto is {A_LOOK:,}, and all for --row and --jsonl.",
    )
    parser.add_argument("--model.name", type=str, default="assets/tiny-qwen", help="Model whose tokenizer is used.")
    parser.add_argument("--model.revision", type=str | None, default=None, help="Commit of its repository.")
    parser.add_class_arguments(MagpieDataModule, "data")
    parser.link_arguments("model.name", "data.tokenizer")
    parser.link_arguments("model.revision", "data.tokenizer_revision")
    return parser


def run(args: Sequence[str]) -> int:
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    given, data = parse(args)
    if given.rows < 0:
        raise UserError("--rows", given.rows, "is below 0", "give the number of examples to show")
    if given.limit not in ("auto", None) and not (given.limit.isdecimal() and int(given.limit)):
        raise UserError("--limit", given.limit, "is not a number of rows", "give 1 or more, null for all, or auto")
    if given.row is not None and (given.html or given.jsonl):
        raise UserError("--row", given.row, "explains one row, in the terminal", "leave out --html and --jsonl")
    if given.html and given.jsonl and Path(given.html).resolve() == Path(given.jsonl).resolve():
        raise UserError("--jsonl", given.jsonl, "is the file that --html names", "give another name")
    everything = given.row is not None or given.jsonl is not None
    auto = None if everything else A_LOOK
    limit = auto if given.limit == "auto" else given.limit and int(given.limit)
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal that lacks a character still shows the others
    console = Console()
    if given.row is not None:
        explain_row(console, data, given.row, limit)
        return 0
    with ExitStack() as files:
        html, jsonl = (files.enter_context(new_file(f"--{name}", given[name])) for name in ("html", "jsonl"))
        examples: list[Row] = []
        for row in read(data, limit):
            if row.split is not None and len(examples) < given.rows:
                examples.append(row)
            if jsonl is not None:
                jsonl.write(json.dumps(as_json(row), ensure_ascii=False) + "\n")
        decode = data.think_tokenizer.decode
        if html is not None:
            of = {"source": ", ".join(one.name for one in data.mix), "tokenizer": data.tokenizer_name}
            html.write(page(examples, data.stats, decode, data.max_length, of))
    preview.show(console, examples, data.stats, decode, data.max_length)
    for name in filter(None, (given.html, given.jsonl)):
        print(f"written to {name}", file=sys.stderr)
    return 0


def parse(args: Sequence[str]) -> tuple[Any, MagpieDataModule]:
    """What was asked for, and the data of the configs and of the settings after them."""
    parser = build_parser()
    args = list(args)
    if not config_files(args) and not {"-h", "--help"} & set(args):
        newest = next(find_runs(RunSettings().root), None)
        if newest is None:
            problem = "was not given, and there is no run yet whose data could be looked at"
            raise UserError("--config", None, problem, "give one: --config configs/demo.yaml")
        args = ["--config", str(newest.config()), *args]
        print(f"config {newest.config()}", file=sys.stderr)
    try:
        given = parser.parse_args(only_what_matters(args, MATTERS))
        return given, parser.instantiate_classes(given).data
    except Complaint as complaint:
        raise explain(complaint, ["preview", *args]) from complaint


def read(data: MagpieDataModule, limit: int | None) -> Iterator[Row]:
    """What becomes of the rows, with a progress bar. Raises UserError if there is none."""
    with tqdm(total=limit, desc="reading", unit=" rows", disable=None, leave=False) as bar:
        for outcome, source, split in data.processed_examples(limit):
            bar.update()
            yield Row(data.stats.read - 1, outcome, source, split)
    if not data.stats.read:
        name = ", ".join(one.name for one in data.mix)
        raise UserError("data.source", name, "holds no rows", "give a source with rows in it")


def explain_row(console: Console, data: MagpieDataModule, wanted: str, limit: int | None) -> None:
    """Prints all about the row at a position or of an id. Raises UserError if it is not there."""
    position = int(wanted) if wanted.isdecimal() else None
    for row in read(data, limit):
        if row.position == position if position is not None else row.outcome.row_id == wanted:
            break
        if position is not None and row.position > position:
            problem = "was passed over: its split had all the rows that it wants"
            raise UserError("--row", wanted, problem, "raise data.train_rows and data.val_rows to see it")
    else:
        problem = f"is not among the {data.stats.read:,} rows read"
        raise UserError("--row", wanted, problem, "give a position from 0, or an id; --jsonl FILE lists them")
    raw = row.outcome.raw
    assert raw is not None  # the examples of the preview have their texts
    instruction, response = (str(text or "") for text in (raw.instruction, raw.response))
    preview.explain(console, row, instruction, response, data.think_tokenizer.decode)


def as_json(row: Row) -> dict[str, Any]:
    outcome = row.outcome
    return {
        "row": row.position,
        "row_id": outcome.row_id,
        "source": row.source,
        "split": row.split,
        "instruction": outcome.instruction,
        "thoughts": outcome.thoughts,
        "answer": outcome.answer,
        "input_ids": outcome.ids.tolist(),
        "roles": outcome.roles.tolist(),
        "notes": list(outcome.notes),
        "reason": outcome.reason,
    }


@contextmanager
def new_file(option: str, name: str | None) -> Iterator[TextIO | None]:
    """A file to write, which has its name only when all is written. Raises UserError if it exists or cannot be."""
    if name is None:
        yield None
        return
    path = Path(name).expanduser()
    if path.exists():
        raise UserError(option, name, "exists", "give a new name")
    scratch = path.with_name(f".{path.name}.{os.getpid()}{option}")
    try:
        # Half a surrogate pair has no UTF-8; what is written for it is JSON's own escape
        file = scratch.open("x", encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        problem = f"cannot be written ({error.strerror})"
        raise UserError(option, name, problem, "give a file in a folder that can be written") from error
    try:
        with file:
            yield file
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)
