"""What the answers of an evaluation say: figures for a summary, and a table of them."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from lightning_modules.evaluation.baselines import LABELS as BASELINES
from lightning_modules.evaluation.baselines import Asked, baselines, letter_label, letters
from lightning_modules.evaluation.comparison import Verdicts
from lightning_modules.evaluation.failures import LABELS as FAILURES
from lightning_modules.evaluation.statistics import Interval, accuracy_interval, pass_at_k, wilson
from lightning_modules.evaluation.summary import ordered_groups
from lightning_modules.evaluation.votes import same_answer, vote
from visible import visible

Answer = Mapping[str, Any]  # a line of an AnswerFile
Figures = dict[str, Any]  # as report_figures returns them


def by_question(answers: Sequence[Answer]) -> dict[str, list[Answer]]:
    """Return the answers to each question, by sample."""
    found: dict[str, list[Answer]] = {}
    for answer in sorted(answers, key=lambda one: int(one["sample"])):
        found.setdefault(answer["id"], []).append(answer)
    return found


def verdicts(answers: Sequence[Answer]) -> Verdicts:
    """Return for each question whether its answers are right."""
    return {name: [bool(one["right"]) for one in mine] for name, mine in by_question(answers).items()}


def report_figures(answers: Sequence[Answer]) -> Figures:
    """Return the figures of all answers, as plain JSON. Ratios are from 0 to 1; an interval has two of them.

    With several samples also pass@k and two votes; with several groups also the right answers of each; with right
    answers that are choices also the shares of their letters. An older file lacks some failures.
    """
    questions = by_question(answers)
    known = {name: [bool(one["right"]) for one in mine] for name, mine in questions.items()}
    figures: Figures = {"questions": len(questions), "answers": len(answers), **_right(list(known.values()))}
    samples = min(map(len, known.values()))
    if samples > 1:
        sizes = [2**n for n in range(samples.bit_length()) if 2**n < samples]
        figures["pass_at"] = {
            str(k): sum(pass_at_k(len(one), sum(one), k) for one in known.values()) / len(known)
            for k in (*sizes, samples)
        }
        figures["majority"] = _votes(list(questions.values()), weighted=False)
        if all(one.get("confidence") is not None for one in answers):
            figures["weighted"] = _votes(list(questions.values()), weighted=True)
    figures |= baselines([_asked(mine[0]) for mine in questions.values()])
    figures["well_formed"] = _mean([one["well_formed"] for one in answers])
    figures["cut"] = _mean([not one["finished"] for one in answers])
    figures |= {name: _mean([one[name] for one in answers]) for name in FAILURES if all(name in one for one in answers)}
    figures["thoughts"] = _mean([one["thoughts"] for one in answers])
    if all(one.get("tokens") is not None for one in answers):
        figures["tokens"] = _mean([one["tokens"] for one in answers])
    figures["rungs"] = dict(Counter(f"{'right' if one['right'] else 'wrong'}: {one['rung']}" for one in answers))
    groups = {name: mine[0].get("group", "") for name, mine in questions.items()}
    if len(set(groups.values())) > 1:
        figures["groups"] = {
            group: {"questions": sum(one == group for one in groups.values())}
            | _right([right for name, right in known.items() if groups[name] == group])
            for group in ordered_groups(set(groups.values()))
        }
    if found := letters([_asked(one) for one in answers]):
        figures["letters"] = {letter: shares._asdict() for letter, shares in found.items()}
    return figures


def print_report(columns: Mapping[str, Figures], title: str) -> None:
    """Print a table of figures: a column for each model."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, title=Text(visible(title)), title_style="dim", title_justify="left")
    table.add_column("")
    for name in columns:
        table.add_column(Text(visible(name)), justify="right")
    cells = [dict(_cells(figures)) for figures in columns.values()]
    for label in max(cells, key=len):
        table.add_row(Text(label), *(one.get(label, "-") for one in cells))
    Console().print(table)


def _asked(answer: Answer) -> Asked:
    text = answer["answer"] if answer["finished"] else None
    return Asked(answer.get("reference", ""), int(answer.get("options", 0)), text, bool(answer["right"]))


def _right(known: Sequence[Sequence[bool]]) -> dict[str, Any]:
    return {
        "right": sum(map(sum, known)) / sum(map(len, known)),
        "interval": [round(end, 6) for end in accuracy_interval(known)],
    }


def _votes(questions: Sequence[Sequence[Answer]], weighted: bool) -> dict[str, Any]:
    """Right winners of the votes and their mean share. A cut-off answer abstains. The weight of an answer is the
    geometric mean of its tokens' probabilities."""
    right, shares = 0, 0.0
    for mine in questions:
        texts = [one["answer"] if one["finished"] and one["answer"].strip() else None for one in mine]
        weights = [math.exp(one["confidence"]) for one in mine] if weighted else None
        winner = vote(texts, same_answer, weights)
        right += winner.place is not None and bool(mine[winner.place]["right"])
        shares += winner.share
    interval = wilson(right, len(questions))
    return {
        "right": right / len(questions),
        "interval": [round(end, 6) for end in interval],
        "share": shares / len(questions),
    }


def _cells(figures: Figures) -> list[tuple[str, str]]:
    """(label, text) of each line of the table."""
    lines = [
        ("right answers", _percent(figures["right"])),
        ("  95 % interval", Interval(*figures["interval"]).percent()),
    ]
    lines += [(name, _percent(figures[key])) for key, name in BASELINES.items() if key in figures]
    lines += [(f"pass@{k}", _percent(value)) for k, value in figures.get("pass_at", {}).items() if k != "1"]
    for key, name in (("majority", "majority vote"), ("weighted", "vote by confidence")):
        if found := figures.get(key):
            lines += [
                (name, _percent(found["right"])),
                (f"  95 % interval of {name}", Interval(*found["interval"]).percent()),
            ]
            lines += [(f"  share of the winner, {name}", _percent(found["share"]))]
    lines += [("well-formed thinking", _percent(figures["well_formed"]))]
    lines += [(name, _percent(figures[key])) for key, name in FAILURES.items() if key in figures]
    lines += [("thoughts per answer", f"{figures['thoughts']:.1f}")]
    if "tokens" in figures:
        lines += [("tokens per answer", f"{figures['tokens']:,.0f}")]
    for group, found in figures.get("groups", {}).items():
        label = f"right: {visible(group) or 'no group'} ({found['questions']:,})"
        lines += [(label, f"{_percent(found['right'])}  ({Interval(*found['interval']).percent()})")]
    for letter, shares in figures.get("letters", {}).items():
        lines += [(letter_label(letter, shares["references"]), _percent(shares["answers"]))]
    return lines


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"
