"""A picture of the answers: well-formed and right ones of the base and of each arm, with intervals, as SVG."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

from benchmarks.learning.curves import Results, mean_of, verdicts_of
from lightning_modules.evaluation.baselines import Asked, baselines
from lightning_modules.evaluation.statistics import Interval, accuracy_interval

WIDTH, LEFT, RIGHT, TOP, LINE = 720, 190, 40, 34, 44  # pixels: the width, three margins, the height of an arm
FORM, RIGHT_ANSWERS, BASELINE = "#8fb8de", "#e7833a", "#666666"  # colours


class Bars(NamedTuple):
    """The two bars of a model. Ratios are from 0 to 1."""

    name: str
    well_formed: float
    right: float
    interval: Interval  # of the right answers


def bars_of(name: str, arm: Results) -> Bars:
    right = list(verdicts_of(arm, sorted(arm)).values())
    return Bars(name, mean_of(arm, "well_formed"), mean_of(arm, "right"), accuracy_interval(right))


def first_choice(answers: Mapping[str, Mapping[str, Any]]) -> float | None:
    """Return the ratio of questions that the first choice answers right; None if the right answers are no choices."""
    asked = [Asked(one["reference"], int(one.get("options", 0)), None, False) for one in answers.values()]
    return baselines(asked).get("baseline_first")


def picture(bars: Sequence[Bars], always_first: float | None) -> str:
    """Return the SVG; a dashed line is where a model would be that always gives the first choice."""
    height = TOP + LINE * len(bars) + 46

    def x(ratio: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * ratio

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" font-family="sans-serif" '
        f'font-size="13"><rect width="{WIDTH}" height="{height}" fill="white"/>',
        f'<text x="{LEFT}" y="16" fill="{FORM}">well-formed thinking</text>',
        f'<text x="{LEFT + 160}" y="16" fill="{RIGHT_ANSWERS}">right answers, 95 % interval</text>',
    ]
    for tick in range(0, 101, 25):
        at, foot = x(tick / 100), TOP + LINE * len(bars)
        parts.append(f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{TOP - 6}" y2="{foot}" stroke="#dddddd"/>')
        parts.append(f'<text x="{at:.1f}" y="{foot + 16}" text-anchor="middle">{tick} %</text>')
    for k, one in enumerate(bars):
        top = TOP + LINE * k
        parts.append(f'<text x="{LEFT - 10}" y="{top + 20}" text-anchor="end">{escape(one.name)}</text>')
        for y, ratio, colour in ((top, one.well_formed, FORM), (top + 16, one.right, RIGHT_ANSWERS)):
            parts.append(f'<rect x="{LEFT}" y="{y}" width="{x(ratio) - LEFT:.1f}" height="14" fill="{colour}"/>')
        low, high = (f"{x(bound):.1f}" for bound in one.interval)
        parts.append(f'<line x1="{low}" x2="{high}" y1="{top + 23}" y2="{top + 23}" stroke="black" stroke-width="2"/>')
    if always_first is not None:
        place, below = f"{x(always_first):.1f}", TOP + LINE * len(bars)
        ends = f'x1="{place}" x2="{place}" y1="{TOP - 6}" y2="{below + 20}"'
        parts.append(f'<line {ends} stroke="{BASELINE}" stroke-dasharray="5 4"/>')
        label = f"always the first choice: {100 * always_first:.0f} %"
        parts.append(f'<text x="{place}" y="{below + 36}" text-anchor="middle" fill="{BASELINE}">{label}</text>')
    return "\n".join([*parts, "</svg>\n"])
