"""How many answers are right at which thinking budget?

    python cli.py fit --config configs/demo.yaml
    python -m benchmarks.budget --write        # the newest run; 200 held-out problems of the demo

Each line of the table answers the run's held-out rows anew, greedy, as `validate` does, with one setting of thinking.
--write puts the table into docs/thinking.md and the curves into docs/budget.svg.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from lightning.pytorch import Trainer

from commands.load import Loaded, load_run
from errors import UserError
from lightning_modules.evaluation.statistics import Interval, wilson
from lightning_modules.generation.decoding import Decoding

DOCS = Path(__file__).resolve().parents[1] / "docs"
BUDGETS: tuple[int | None, ...] = (0, 8, 16, 24, 32, 48, None)
RESERVE = 32  # tokens; the answers of the demo have 10 at most
WAYS: dict[str, dict[str, Any]] = {
    "budget alone": {},
    "budget and grammar": {"grammar": True, "answer_reserve": RESERVE},
}
HEAD = "| budget | | right answers | 95 % interval | thinking tokens | cut | well-formed | masked |"


@dataclass(frozen=True)
class Line:
    """A line of the table."""

    way: str
    budget: int | None
    rows: int
    right: int
    thinking: float  # mean tokens
    cut: float  # share of responses whose thinking was cut
    well_formed: float
    masked: float  # mean probability that masks took away

    @property
    def interval(self) -> Interval:
        """Wilson's 95 % interval of the share of right answers."""
        return wilson(self.right, self.rows)

    def markdown(self) -> str:
        budget = "none" if self.budget is None else str(self.budget)
        shares = f"{self.cut:.0%} | {self.well_formed:.0%} | {self.masked:.3f}".replace("%", " %")
        right = f"{100 * self.right / self.rows:.1f} %"
        return f"| {budget} | {self.way} | {right} | {self.interval.percent()} | {self.thinking:.1f} | {shares} |"


def measure(loaded: Loaded, trainer: Trainer, way: str, budget: int | None) -> Line:
    """Answer the held-out rows with one setting."""
    tuner = loaded.tuner
    settings = replace(tuner.evaluation.decoding, thinking_budget=budget, **WAYS[way])
    tuner.decoding = Decoding.of(tuner.tokenizer, tuner.generation_config, settings)
    trainer.validate(tuner, loaded.data, verbose=False)
    rows = tuner.answered
    written = [row.written for row in rows]
    return Line(
        way,
        budget,
        len(rows),
        sum(row.matches for row in rows),
        fmean(one.thinking_tokens for one in written),
        fmean(one.cut is not None for one in written),
        fmean(one.well_formed for one in written),
        fmean(one.masked or 0.0 for one in written),
    )


WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 720, 360, 56, 24, 170, 48  # pixels; the last four are margins
COLOURS = ("#5aa9f0", "#e7833a")


def svg(lines: Sequence[Line]) -> str:
    """Return a picture: right answers against the mean number of thinking tokens, with intervals."""
    most = max(line.thinking for line in lines) * 1.05

    def x(tokens: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * tokens / most

    def y(share: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (1 - share)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif" '
        f'font-size="13"><rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>'
    ]
    for tick in range(0, 101, 25):
        at = y(tick / 100)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}" stroke="#dddddd"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{tick} %</text>')
    for tick in range(0, int(most) + 1, 10):
        parts.append(f'<text x="{x(tick):.1f}" y="{HEIGHT - BOTTOM + 20}" text-anchor="middle">{tick}</text>')
    middle = LEFT + (WIDTH - LEFT - RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 8}" text-anchor="middle">thinking tokens, mean</text>')
    parts.append(f'<text x="{LEFT}" y="{TOP - 8}">right answers</text>')
    for k, (way, colour) in enumerate(zip(WAYS, COLOURS, strict=True)):
        own = sorted((line for line in lines if line.way == way), key=lambda line: line.thinking)
        points = " ".join(f"{x(line.thinking):.1f},{y(line.right / line.rows):.1f}" for line in own)
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for line in own:
            low, high = line.interval
            right_of = f"{x(line.thinking):.1f}"
            ends = f'y1="{y(low):.1f}" y2="{y(high):.1f}"'
            parts.append(f'<line x1="{right_of}" x2="{right_of}" {ends} stroke="{colour}"/>')
            parts.append(f'<circle cx="{right_of}" cy="{y(line.right / line.rows):.1f}" r="4" fill="{colour}"/>')
        parts.append(f'<text x="{WIDTH - RIGHT + 16}" y="{TOP + 20 + 20 * k}" fill="{colour}">{way}</text>')
    return "\n".join([*parts, "</svg>\n"])


def write(lines: Sequence[Line]) -> None:
    """Put the table into the page, in the place of the earlier one, and the picture beside it."""
    page = DOCS / "thinking.md"
    table = "\n".join([HEAD, "|---|---|---|---|---|---|---|---|", *(line.markdown() for line in lines)])
    text, found = re.subn(rf"{re.escape(HEAD)}\n(\|.*\n)+", lambda _: f"{table}\n", page.read_text(encoding="utf-8"))
    if not found:
        raise UserError("--write", page, "has no table of budgets", "put its first line there")
    page.write_text(text, encoding="utf-8")
    (DOCS / "budget.svg").write_text(svg(lines), encoding="utf-8")


def main(args: Sequence[str] | None = None) -> int:
    """Return the exit code: 0, or 2 after a UserError."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.budget", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", help="folder of a run; by default the newest one in --root")
    parser.add_argument("--root", default="runs", help="folder of all runs")
    parser.add_argument("--budgets", type=int, nargs="+", help="tokens; by default 0 8 16 24 32 48 and none")
    parser.add_argument("--write", action="store_true", help="write docs/budget.svg and the table of docs/thinking.md")
    given = parser.parse_args(args)
    try:
        loaded = load_run(given.run, None, given.root)
        trainer = Trainer(
            accelerator="auto", devices=1, logger=False, enable_checkpointing=False, enable_progress_bar=False
        )
        lines = []
        print(HEAD)
        for budget in given.budgets or BUDGETS:
            for way in WAYS:
                lines.append(measure(loaded, trainer, way, budget))
                print(lines[-1].markdown(), flush=True)
        if given.write:
            write(lines)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
