"""The table of a run: tried, held and failed by kind; printed, and written into a page of the docs."""

import os
import platform
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from errors import UserError
from tests.torture.kinds import KINDS
from tests.torture.suite import Case, Outcome

BEGIN, END = "<!-- torture: the table below is written by make torture -->", "<!-- torture: end -->"


def counts(cases: Sequence[Case], outcomes: Sequence[Outcome]) -> list[tuple[str, int, int, int, int]]:
    """(kind, tried, held, failed, left because the time was up) of each kind with cases."""
    found = []
    for kind in dict.fromkeys(case.kind for case in cases):
        mine = [outcome for outcome in outcomes if outcome.case.kind == kind]
        tried = sum(outcome.case.tried for outcome in mine)
        failed = sum(len(outcome.failures) for outcome in mine)
        wanted = sum(case.tried for case in cases if case.kind == kind)
        found.append((kind, tried, tried - failed, failed, wanted - tried))
    return found


def text(cases: Sequence[Case], outcomes: Sequence[Outcome], seconds: float) -> str:
    """The table as it is printed, with the command that repeats each failure."""
    shown = Table(box=box.SIMPLE_HEAD)
    for column in ("kind", "tried", "held", "failed", "left"):
        shown.add_column(column, justify="left" if column == "kind" else "right")
    for kind, *numbers in counts(cases, outcomes):
        shown.add_row(kind, *(f"{number:,}" for number in numbers))
    console = Console(width=100)
    with console.capture() as captured:
        console.print(shown)
    failed = [f"  --kind {o.case.kind} --seed {o.case.seed}" for o in outcomes if o.failures]
    repeat = "\n".join(["repeat a failure with python -m tests.torture", *failed, ""]) if failed else ""
    return f"{captured.get()}{repeat}{seconds / 60:.1f} minutes"


def rows(cases: Sequence[Case], outcomes: Sequence[Outcome]) -> list[str]:
    lines = ["| kind | what is done | what must hold | tried | held |", "|---|---|---|---|---|"]
    for kind, tried, held, *_ in counts(cases, outcomes):
        lines.append(f"| {kind} | {KINDS[kind].done} | {KINDS[kind].holds} | {tried:,} | {held:,} |")
    return lines


def write(page: Path, cases: Sequence[Case], outcomes: Sequence[Outcome], seconds: float) -> None:
    """Write the table between the markers of a page. Raise UserError unless every case of every kind was run."""
    complete = set(KINDS) == {case.kind for case in cases} and not any(left for *_, left in counts(cases, outcomes))
    if not complete:
        raise UserError("--write", page, "would get the table of a part", "run all kinds, with more --minutes")
    before, rest = page.read_text(encoding="utf-8").split(BEGIN)
    _, after = rest.split(END)
    machine = f"{os.cpu_count()} cores, Python {platform.python_version()}"
    when = f"{date.today():%d %B %Y}, {machine}, {seconds / 60:.0f} minutes."
    page.write_text("\n".join([before + BEGIN, when, "", *rows(cases, outcomes), "", END]) + after, encoding="utf-8")
