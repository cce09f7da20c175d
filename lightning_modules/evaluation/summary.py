"""The table at the end of a command, with the figures of summary.json."""

import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from lightning_modules.evaluation.baselines import LABELS as BASELINES
from lightning_modules.evaluation.baselines import letter_label
from lightning_modules.evaluation.failures import LABELS as FAILURES
from lightning_modules.evaluation.statistics import wilson
from lightning_modules.evaluation.think_scores import ANSWER_LETTER, REFERENCE_LETTER, AnsweredRow
from visible import visible

SAMPLES = 3  # rows printed after the table
THOUGHT = re.compile(r"<think>.*?</think>", re.DOTALL)
PERCENT = ("think_format", "answer_match", "answer_letter", *FAILURES, *BASELINES)
ONE_DECIMAL = ("thoughts", "tag_rank_open", "tag_rank_close")
LABELS = {
    "loss": "loss per token",
    "perplexity": "perplexity",
    "loss_tag_open": "  opening tag",
    "loss_thought": "  thought",
    "loss_tag_close": "  closing tag",
    "loss_answer": "  answer",
    "loss_end": "  end",
    "tag_prob_open": "opening tag: probability",
    "tag_rank_open": "  rank",
    "tag_prob_close": "closing tag: probability",
    "tag_rank_close": "  rank",
    "think_format": "well-formed thinking",
    **FAILURES,
    "thoughts": "thoughts per answer",
    "answer_match": "right answers",
    **BASELINES,
}  # in the order of the table
BY_GROUP = "answer_match/"
DIFFICULTIES = ("very easy", "easy", "medium", "hard", "very hard")  # of Magpie; other groups follow by name


def stage_figures(metrics: Mapping[str, Any], stage: str) -> dict[str, float]:
    """Return the figures of one stage ("val" or "test") from Lightning's metrics, without the stage in their names."""
    own = {name.removeprefix(f"{stage}/"): value for name, value in metrics.items() if name.startswith(f"{stage}/")}
    return {name: round(float(value), 6) for name, value in own.items()}


def print_table(columns: Mapping[str, Mapping[str, float]]) -> None:
    """Print a table: a column for each set of figures, a line for each figure that occurs in any. Below the right
    answers stands their interval."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    table = Table(
        box=box.SIMPLE_HEAD,
        title=_title(columns),
        title_style="dim",
        title_justify="left",
    )
    table.add_column("")
    for name in columns:
        table.add_column(name, justify="right")
    for name in ordered({name for figures in columns.values() for name in figures}):
        counted = next((figures for figures in columns.values() if name in figures), {})
        table.add_row(Text(label(name, counted)), *(shown(name, figures.get(name)) for figures in columns.values()))
        if name == "answer_match":
            table.add_row("  95 % interval", *map(_interval, columns.values()))
    console.print(table)


def _title(columns: Mapping[str, Mapping[str, float]]) -> str | None:
    """The answered rows of the last column, and of the others where they had another number."""
    counts = {name: int(figures["answered"]) for name, figures in columns.items() if "answered" in figures}
    if not counts:
        return None
    *_, (name, questions) = counts.items()
    rows = int(columns[name].get("answered_rows", questions))
    text = f"{rows:,} held-out rows" + (f", {questions:,} different questions" if rows > questions else "")
    others = [f"{other}: {count:,}" for other, count in counts.items() if count != questions]
    return f"{text} answered" + (f" ({', '.join(others)})" if others else "")


def _interval(figures: Mapping[str, float]) -> str:
    if not figures.get("answered") or "answer_match" not in figures:
        return "-"
    questions = figures["answered"]
    return wilson(round(figures["answer_match"] * questions), questions).percent()


def ordered(names: set[str]) -> list[str]:
    """Return the names of figures in the order of the table. Counts of rows are not among them: titles show them.
    Neither are the letters of right answers: they stand in the labels of the answers' letters."""
    groups = {name.removeprefix(BY_GROUP) for name in names if name.startswith(BY_GROUP)}
    letters = sorted(name for name in names if name.startswith(ANSWER_LETTER))  # "none" is the last one
    by_group = [BY_GROUP + group for group in ordered_groups(groups)]
    return [*(name for name in LABELS if name in names), *by_group, *letters]


def ordered_groups(groups: set[str]) -> list[str]:
    """Return groups of rows in the order of a table: Magpie's difficulties, then others by name."""
    known = [group for group in DIFFICULTIES if group in groups]
    return [*known, *sorted(groups - set(known))]


def label(name: str, figures: Mapping[str, float]) -> str:
    """Return the label of a figure; a group's label has the number of its rows, if known, and that of a letter its
    share of the right answers."""
    if name.startswith(ANSWER_LETTER):
        letter = name.removeprefix(ANSWER_LETTER)
        return letter_label(letter, figures.get(REFERENCE_LETTER + letter, 0.0))
    if not name.startswith(BY_GROUP):
        return LABELS[name]
    group = name.removeprefix(BY_GROUP)
    rows = figures.get(f"answered/{group}")
    return f"  {visible(group)}" + (f" ({rows:.0f})" if rows else "")


def shown(name: str, value: float | None) -> str:
    """Return a figure as the table shows it; "-" for a missing one."""
    if value is None:
        return "-"
    if name.partition("/")[0] in PERCENT:
        return f"{100 * value:.1f} %"
    return f"{value:.1f}" if name in ONE_DECIMAL else f"{value:.4f}"


def print_samples(answered: Sequence[AnsweredRow]) -> None:
    """Print a few prompts with the model's responses."""
    for row in answered[:SAMPLES]:
        print(visible(row.prompt, lines=True) + styled(row.written.text, sys.stdout.isatty()) + "\n")


def styled(text: str, terminal: bool) -> str:
    """Return the text; for a terminal with dimmed thoughts and marks for control and invisible characters."""
    return THOUGHT.sub("\033[2m\\g<0>\033[0m", visible(text, lines=True)) if terminal else text
