"""preview: show the data of a config as the model sees it. It loads no model and caches no rows."""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import Any, Literal, TextIO

from rich.console import Console
from tqdm import tqdm

from commands.fit_settings import build_data, fit_parser
from commands.parsing import Parser
from commands.paths import check_data, check_model
from commands.which_run import config_of_newest_run
from datamodules.magpie import MagpieDataModule
from datamodules.preview import terminal as preview
from datamodules.preview.content import ROLE_LABELS, PreviewRow, source_texts, with_marks
from datamodules.preview.dropped import has_reason, print_dropped
from datamodules.preview.html import page
from datamodules.text.segments import Role
from disk import disk_errors, writing
from errors import UserError

AUTO_LIMIT = 2_000  # rows, read in seconds
ROLES = ", ".join(f"{role.value} {name}" for role, name in zip(Role, ROLE_LABELS, strict=True))


def build_parser() -> Parser:
    parser = fit_parser(
        "preview",
        "Loads no model. Without --config it shows the data of the newest run.",
        shown=("data",),
    )
    parser.add_argument("--rows", type=int, default=3, help="Number of rows to show.")
    parser.add_argument(
        "--dropped",
        type=str | None,
        nargs="?",
        const="",
        help="Show dropped rows in place of kept ones: those with this reason (a part of its text, or the name of a "
        "malformed shape), or all without a value. A mark stands at the place of the fault, if it has one.",
    )
    parser.add_argument(
        "--row",
        type=str | None,
        help="Explain only this row: its texts, tokens, steps and malformed shapes. Give its id, source:id if several "
        "sources have it, or @ and its position among the rows read, from 0.",
    )
    parser.add_argument("--html", type=str | None, help="Also write a web page to this file. It opens without network.")
    parser.add_argument(
        "--jsonl",
        type=str | None,
        help="Also write all rows to this file, one JSON object per line: row (its position), row_id, source, split, "
        "messages (the texts of the source), instruction, thoughts, answer, passages (all texts of the response in "
        f"order, each thought or answer), input_ids, roles ({ROLES}), notes, and reason (all of a dropped row, or "
        "null). Rows of a split that is already full are skipped.",
    )
    parser.add_argument(
        "--limit",
        type=Literal["auto"] | int | None,
        default="auto",
        help=f"Number of rows to read. null reads all rows that fit would read; auto reads {AUTO_LIMIT:,}, and all "
        "rows for --row and --jsonl.",
    )
    return parser


def run(args: Sequence[str]) -> int:
    given, data = parse(args)
    if given.row is not None and (given.html or given.jsonl or given.dropped is not None):
        fix = "remove --html, --jsonl and --dropped"
        raise UserError("--row", given.row, "explains one row, in the terminal", fix)
    if given.html and given.jsonl and Path(given.html).resolve() == Path(given.jsonl).resolve():
        raise UserError("--jsonl", given.jsonl, "is also the file of --html", "give another name")
    everything = given.row is not None or given.jsonl is not None
    auto = None if everything else AUTO_LIMIT
    limit = auto if given.limit == "auto" else given.limit
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # for a terminal that lacks a character
    console = Console()
    if given.row is not None:
        explain_row(console, data, given.row, limit)
        return 0
    with ExitStack() as files:
        html, jsonl = (files.enter_context(new_file(f"--{name}", given[name])) for name in ("html", "jsonl"))
        examples: list[PreviewRow] = []
        dropped: list[PreviewRow] = []
        for row in read(data, limit):
            if row.split is not None and len(examples) < given.rows:
                examples.append(row)
            if given.dropped is not None and len(dropped) < given.rows and has_reason(row, given.dropped):
                dropped.append(row)
            if jsonl is not None:
                jsonl.write(json.dumps(as_json(row), ensure_ascii=False, default=str) + "\n")
        decode = data.think_tokenizer.decode
        if html is not None:
            facts = {"source": ", ".join(one.name for one in data.mix), "tokenizer": data.tokenizer_name}
            html.write(page(examples, data.stats, decode, data.max_length, facts))
        if given.dropped and not dropped and given.rows and (reasons := data.stats.dropped):
            problem = "is in no reason for which a row was dropped"
            raise UserError("--dropped", given.dropped, problem, f"choose a part of: {'; '.join(reasons)}")
    print_dropped(console, dropped)
    preview.print_preview(console, examples if given.dropped is None else [], data.stats, decode, data.max_length)
    for name in filter(None, (given.html, given.jsonl)):
        print(f"written to {name}", file=sys.stderr)
    return 0


def parse(args: Sequence[str]) -> tuple[Any, MagpieDataModule]:
    """The command's options, and the data module of the configs and flags."""
    parser = build_parser()
    given = parser.read(args, newest_config)
    check_model(given)
    check_data(given)
    return given, build_data(parser, given)


def newest_config() -> Path:
    found = config_of_newest_run()
    print(f"config {found}", file=sys.stderr)
    return found


def read(data: MagpieDataModule, limit: int | None) -> Iterator[PreviewRow]:
    """Yield each row after its processing, with a progress bar. Raises UserError if there is none."""
    with tqdm(total=limit, desc="reading", unit=" rows", disable=None, leave=False) as bar:
        for example, source, split in data.processed_examples(limit):
            bar.update()
            yield PreviewRow(data.stats.read - 1, example, source, split)
    if not data.stats.read:
        name = ", ".join(one.name for one in data.mix)
        raise UserError("data.source", name, "holds no rows", "give a source with rows in it")


def explain_row(console: Console, data: MagpieDataModule, wanted: str, limit: int | None) -> None:
    """Print everything about one row. Raises UserError if no such row is read."""
    row = find_row(data, wanted, limit)
    raw = row.example.raw
    assert raw is not None  # the examples of the preview have their texts
    preview.print_row(console, row, source_texts(raw), data.think_tokenizer.decode)


def find_row(data: MagpieDataModule, wanted: str, limit: int | None) -> PreviewRow:
    """Return the row that is named by an id, by an id of a source (source:id), or by a position (@number).

    A number stands for a position if no row has it as its id. Raises UserError if no such row is read, or if several
    sources have a row with the id.
    """
    position = int(wanted.removeprefix("@")) if wanted.removeprefix("@").isdecimal() else None
    found: dict[str, PreviewRow] = {}  # by source
    there: PreviewRow | None = None  # the row at the position
    for row in read(data, limit):
        row_id = row.example.row_id
        if wanted in (row_id, with_marks(row_id)):
            found.setdefault(row.source, row)
        elif wanted in (full := f"{row.source}:{row_id}", with_marks(full)):
            return row
        there = row if row.position == position else there
        if (found and len(data.mix) == 1) or (wanted.startswith("@") and row.position == position):
            break
    if len(found) > 1:
        fix = f"give {' or '.join(f'{source}:{wanted}' for source in sorted(found))}"
        raise UserError("--row", wanted, "is the id of a row in several sources", fix)
    if row_found := next(iter(found.values()), there):
        return row_found
    if position is not None and position < data.stats.read:
        problem = "was skipped, since its split was already full"
        raise UserError("--row", wanted, problem, "raise data.train_rows and data.val_rows to see it")
    problem = f"is not among the {data.stats.read:,} rows read"
    raise UserError("--row", wanted, problem, "give an id, source:id, or a position like @0; --jsonl FILE lists them")


def as_json(row: PreviewRow) -> dict[str, Any]:
    example = row.example
    return {
        "row": row.position,
        "row_id": example.row_id,
        "source": row.source,
        "split": row.split,
        "messages": [message._asdict() for message in example.raw.messages] if example.raw is not None else [],
        "instruction": example.instruction,
        "thoughts": example.thoughts,
        "answer": example.answer,
        "passages": example.passages,
        "input_ids": example.ids.tolist(),
        "roles": example.roles.tolist(),
        "notes": list(example.notes),
        "reason": example.reason,
    }


@contextmanager
def new_file(option: str, name: str | None) -> Iterator[TextIO | None]:
    """A new file, which gets its name when it is complete. Raises UserError if it exists or cannot be written."""
    if name is None:
        yield None
        return
    path = Path(name).expanduser()
    if path.exists():
        raise UserError(option, name, "exists", "give a new name")
    if not path.parent.is_dir():
        raise UserError(option, name, "cannot be written (there is no such folder)", "make the folder first")
    with disk_errors(option, path), writing(path) as file:
        # UTF-8 cannot encode half a surrogate pair, so it is written as a JSON escape
        text = TextIOWrapper(file, encoding="utf-8", errors="backslashreplace", newline="\n")
        yield text
        text.flush()
        text.detach()
