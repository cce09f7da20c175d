"""The tables for the terminal and as Markdown, and results-TIME.json with every curve."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks.learning.curves import FIGURES, Curve, differences, over_seeds, plainly, shown, value, verdict
from lightning_modules.run.folder import STARTED

Results = Mapping[str, Mapping[int, Mapping[str, Any]]]  # recipe -> seed -> result of runs.read_run


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


def curves_of(results: Results) -> dict[str, dict[int, Curve]]:
    return {name: {seed: run["curve"] for seed, run in runs.items()} for name, runs in results.items()}


def curve_table(curves: Mapping[str, Mapping[int, Curve]], names: Sequence[str]) -> Table:
    """Return a table of each figure at each validation, with recipes side by side."""
    means = {name: over_seeds(list(curves[name].values())) for name in names}
    steps = sorted(set.intersection(*(set(by_step) for by_step in means.values())))
    rows = [
        [title if step == steps[0] else "", str(step), *(shown(means[name][step][figure], figure) for name in names)]
        for figure, title in FIGURES.items()
        for step in steps
        if all(figure in means[name][step] for name in names)
    ]
    return Table("Against optimizer steps", ["", "step", *names], rows)


def knob_table(results: Results) -> Table:
    """Return a table of every recipe after the last step, with its difference in loss to the first recipe."""
    curves = curves_of(results)
    base = next(iter(results))
    header = ["", *FIGURES.values(), f"loss minus {base}'s", ""]
    rows = []
    for name in results:
        by_step = over_seeds(list(curves[name].values()))
        last = max(by_step)
        found = differences(curves[name], curves[base], last, "loss")
        against = ["", ""] if name == base else [shown(value(found), "loss", sign=True), verdict(found, "loss")]
        figures = [shown(by_step[last][figure], figure) if figure in by_step[last] else "-" for figure in FIGURES]
        rows.append([name, *figures, *against])
    return Table(f"One knob at a time, after {last} steps", header, rows)


def conclusions(results: Results) -> list[str]:
    """Return the verdicts on strong against literal, for each learning rate that both have."""
    curves = curves_of(results)
    lines: list[str] = []
    for name in results:
        base = name.replace("strong", "literal")
        if name.startswith("strong") and base in results:
            last = min(max(curve) for which in (name, base) for curve in curves[which].values())
            lines += plainly(curves[name], curves[base], last, (name, base))
    return lines


def setting(results: Results) -> str:
    """Return versions, machines and commits of all runs; several if they differ."""
    found: dict[str, set[str]] = {}
    for run in (run for runs in results.values() for run in runs.values()):
        environment = run["environment"]
        machine = ", ".join(environment["machine"]["gpus"]) or f"{environment['machine']['cpus']} CPU cores"
        for name, text in {
            "machine": machine, "Python": environment["python"], **environment["versions"],
            "commit": (environment["git"]["commit"] or "-")[:9],
        }.items():  # fmt: skip
            if text is not None:
                found.setdefault(name, set()).add(str(text))
    return "; ".join(f"{name} {' and '.join(sorted(texts))}" for name, texts in found.items())


def write(out: Path, results: Results, tables: Sequence[Table], lines: Sequence[str], known: Mapping[str, Any]) -> Path:
    """Write results-TIME.md and results-TIME.json, and return the path of the latter. Older results stay."""
    now = f"results-{datetime.now():{STARTED}}"
    names = (out / f"{now}{suffix}" for suffix in ("", *(f"-{n}" for n in range(2, 100))))
    stem = next(path for path in names if not path.with_suffix(".md").exists())
    text = "\n".join([f"`{known['command']}`\n", setting(results) + "\n", *(table.markdown() for table in tables)])
    with stem.with_suffix(".md").open("x", encoding="utf-8") as file:
        file.write(text + "\n" + "".join(f"- {line}\n" for line in lines))
    means = {
        name: {step: {figure: asdict(one) for figure, one in figures.items()} for step, figures in by_step.items()}
        for name, by_step in ((name, over_seeds(list(c.values()))) for name, c in curves_of(results).items())
    }
    with stem.with_suffix(".json").open("x", encoding="utf-8") as file:
        json.dump({**known, "over_seeds": means, "conclusions": list(lines), "runs": results}, file, indent=1)
    return stem.with_suffix(".json")
