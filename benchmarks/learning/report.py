"""The tables for the terminal and as Markdown, and results-TIME.json with every curve and every answer's verdict."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks.learning.curves import (
    FIGURES,
    Results,
    at_end,
    compared,
    differences,
    mean_of,
    value,
    verdict,
    verdicts_of,
)
from lightning_modules.evaluation.baselines import LABELS as BASELINES
from lightning_modules.evaluation.baselines import Asked, baselines
from lightning_modules.evaluation.comparison import Comparison, compare
from lightning_modules.evaluation.statistics import accuracy_interval
from lightning_modules.run.folder import STARTED

Arms = Mapping[str, Results]  # name of the arm -> its results


@dataclass(frozen=True)
class Table:
    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        lines = [self.header, ["---"] * len(self.header), *self.rows]
        return f"{self.title}\n\n" + "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"

    def show(self) -> None:
        from rich import box
        from rich.console import Console
        from rich.table import Table as RichTable

        table = RichTable(box=box.SIMPLE_HEAD, title=self.title, title_justify="left", title_style="bold")
        for k, name in enumerate(self.header):
            table.add_column(name, justify="right" if k else "left", no_wrap=True)
        for row in self.rows:
            table.add_row(*row)
        # Full width: no figure may be cut off, and a file has no width
        Console(width=Console(width=1000).measure(table).maximum).print(table)


def loss_table(title: str, arms: Arms) -> Table:
    """Return a table of the losses by role after training, in nats per token, with the cost of each arm."""
    first = next(iter(arms.values()))
    header = ["", "seeds", *FIGURES.values(), "loss minus the first's", "", "seconds", "peak GB"]
    rows = [["before", "", *(f"{_before(first, name):.3f}" for name in FIGURES), "", "", "", ""]]
    for name, arm in arms.items():
        found = differences(arm, first, "loss")
        against = ["", ""] if arm is first or not found else [value(found).shown(sign=True), verdict(found)]
        figures = [value(list(at_end(arm, figure).values())).shown() for figure in FIGURES]
        rows.append([name, str(len(arm)), *figures, *against, *_cost(arm)])
    return Table(title, header, rows)


def answer_table(title: str, arms: Arms, base: Mapping[str, Any] | None) -> Table:
    """Return a table of the answers to the test questions, of all seeds; `base`: the answers of the untrained model."""
    first = next(iter(arms.values()))
    header = ["", "seeds", "well-formed", "ended", "looped", "right", "95 % interval", "against the base",
              "against the first", "thoughts", "tokens"]  # fmt: skip
    untrained: Arms = {"the base": {0: {"answers": base}}} if base else {}
    rows = []
    for name, arm in (*untrained.items(), *arms.items()):
        right = list(verdicts_of(arm, sorted(arm)).values())
        interval = accuracy_interval(right)
        own = [_share(arm, key) for key in ("well_formed", "finished", "looped", "right")]
        to_base = _against_base(arm, base) if base and name in arms else None
        to_first = compared(arm, first) if arm is not first and name in arms else None
        rows.append([
            name, str(len(arm)), *own, interval.percent(), _points(to_base), _points(to_first),
            f"{mean_of(arm, 'thoughts'):.1f}", f"{mean_of(arm, 'tokens'):.0f}",
        ])  # fmt: skip
    asked = next(iter(first.values()))["answers"].values()
    known = [Asked(one["reference"], int(one.get("options", 0)), None, False) for one in asked]
    for key, ratio in baselines(known).items():
        rows.append([BASELINES[key].strip(), *[""] * 4, f"{100 * ratio:.1f} %", *[""] * 5])
    return Table(title, header, rows)


def cost_table(title: str, arms: Arms) -> Table:
    """Return a table of the loss of answers given their thoughts, in nats per token, with seconds and memory."""
    rows = [
        [name, str(len(arm)), value(list(at_end(arm, "loss_answer").values())).shown(), *_cost(arm)]
        for name, arm in arms.items()
    ]
    return Table(title, ["", "seeds", "loss of answers", "seconds", "peak GB"], rows)


def curve_table(title: str, arms: Arms) -> Table:
    """Return a table of the loss at each validation, with arms side by side."""
    steps = sorted({step for arm in arms.values() for run in arm.values() for step in run["curve"]})
    rows = [[str(step), *(_at(arm, step) for arm in arms.values())] for step in steps]
    return Table(title, ["step", *arms], rows)


def _at(arm: Results, step: int) -> str:
    found = [run["curve"][step]["loss"] for run in arm.values() if step in run["curve"]]
    return value(found).shown() if found else ""


def _before(arm: Results, figure: str) -> float:
    curve = next(iter(arm.values()))["curve"]
    return float(curve[min(curve)][figure])


def _cost(arm: Results) -> list[str]:
    training = [run["training"] for run in arm.values()]
    return [value([one["train_seconds"] for one in training]).shown(0),
            f"{max(one['peak_memory_gb'] for one in training):.1f}"]  # fmt: skip


def _share(arm: Results, key: str) -> str:
    return f"{100 * mean_of(arm, key):.1f} %"


def _against_base(arm: Results, base: Mapping[str, Any]) -> Comparison | None:
    """The base is asked once and has no seed: each of its answers is compared with those of all seeds."""
    seeds = sorted(arm)
    once = {name: [bool(one["right"])] * len(seeds) for name, one in base.items()}
    return compare(once, verdicts_of(arm, seeds))


def _points(found: Comparison | None) -> str:
    if found is None:
        return ""
    low, high = (100 * bound for bound in found.interval)
    return f"{100 * found.difference:+.1f} ({low:+.1f} to {high:+.1f}), p {found.p_value:.2g}"


def setting(results: Sequence[Mapping[str, Any]]) -> str:
    """Return versions, machines and commits of all runs; several if they differ."""
    found: dict[str, set[str]] = {}
    for environment in (run["environment"] for run in results):
        machine = ", ".join(environment["machine"]["gpus"]) or f"{environment['machine']['cpus']} CPU cores"
        for name, text in {
            "machine": machine, "Python": environment["python"], **environment["versions"],
            "commit": (environment["git"]["commit"] or "-")[:9],
        }.items():  # fmt: skip
            if text is not None:
                found.setdefault(name, set()).add(str(text))
    return "; ".join(f"{name} {' and '.join(sorted(texts))}" for name, texts in found.items())


def write(out: Path, tables: Sequence[Table], known: Mapping[str, Any]) -> Path:
    """Write results-TIME.md and results-TIME.json, and return the path of the latter. Older results stay."""
    now = f"results-{datetime.now():{STARTED}}"
    names = (out / f"{now}{suffix}" for suffix in ("", *(f"-{n}" for n in range(2, 100))))
    stem = next(path for path in names if not path.with_suffix(".md").exists())
    text = "\n".join([f"`{known['command']}`\n", known["setting"] + "\n", *(table.markdown() for table in tables)])
    with stem.with_suffix(".md").open("x", encoding="utf-8") as file:
        file.write(text)
    with stem.with_suffix(".json").open("x", encoding="utf-8") as file:
        json.dump(known, file, indent=1)
    return stem.with_suffix(".json")
