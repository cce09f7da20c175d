"""A chart as SVG that stands in a page, or as a PNG, by matplotlib.

The SVG has the page's colours as CSS variables, so it follows light and dark, and its text stays text. Only the objects
of matplotlib are used, without its state (pyplot) and without its settings files.
"""

import io
import itertools
import logging
import re
from collections.abc import Mapping
from html import escape
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from commands.run_report.charts import Chart, Line
from errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIZE = (6.0, 3.5)  # inches, of 72 units each in the SVG
BAR = 0.28  # inches for a bar's line
DPI = 200  # of a PNG
FEW = 40  # points of a line; more have a band in place of bars for their intervals, and no marks
# Colours that nothing else has, until the page's take their place
INK, SOFT, GRID, FIRST, SECOND = "#010203", "#010204", "#010205", "#010206", "#010207"
VARIABLES = {INK: "--ink", SOFT: "--soft", GRID: "--line", FIRST: "--first", SECOND: "--second"}
ON_PAPER = {INK: "#1c2127", SOFT: "#59636e", GRID: "#dfe3e8", FIRST: "#1f6fb8", SECOND: "#b07d00"}
STYLES: list[dict[str, Any]] = [
    {"linestyle": "-", "linewidth": 1.4},
    {"linestyle": "--", "linewidth": 1.6, "marker": "o", "markersize": 4},
    {"linestyle": ":", "linewidth": 1.6, "marker": "s", "markersize": 4},
]
NO_MATH: Any = {"text.parse_math": False}  # a dollar in a text is a dollar


def require_matplotlib() -> None:
    """Raise UserError if matplotlib is missing."""
    if find_spec("matplotlib") is None:
        fix = "run pip install '.[report]' in the folder of this program"
        raise UserError("matplotlib", None, "is not installed, and report needs it", fix)
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it tells of its cache of fonts


def as_svg(chart: Chart) -> str:
    """Return the chart as an SVG element with title and description."""
    import matplotlib

    written = io.StringIO()
    rules: Any = {"svg.fonttype": "none", "svg.hashsalt": chart.key, **NO_MATH}
    with matplotlib.rc_context(rules):
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        _draw(chart, dict.fromkeys(VARIABLES)).savefig(written, format="svg", metadata=nothing, transparent=True)
    return _for_a_page(written.getvalue(), chart)


def write_png(chart: Chart, file: Any) -> None:
    """Write the chart as a PNG with light colours. `file`: a binary file, or a Path."""
    import matplotlib

    with matplotlib.rc_context(NO_MATH):
        figure = _draw(chart, ON_PAPER)
        figure.axes[0].set_title(chart.title, color=ON_PAPER[INK])
        figure.savefig(file, format="png", dpi=DPI, facecolor="white")


def _for_a_page(svg: str, chart: Chart) -> str:
    """The svg element alone: as wide as its place, with the page's colours and fonts, and with names of its own."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r"font-family: [^;\"]*(?:; )?", "", svg)
    svg = re.sub(r"font: (?:[^;\"]* )?([\d.]+px)[^;\"]*", r"font-size: \1", svg)  # as matplotlib before 3.10 writes it
    used = set(re.findall(r'(?:href="#|url\(#)([\w.-]+)', svg))
    svg = re.sub(r' id="([^"]*)"', lambda one: f' id="{chart.key}-{one[1]}"' if one[1] in used else "", svg)
    svg = re.sub(r'(href="#|url\(#)', rf"\g<1>{chart.key}-", svg)
    svg = re.sub(r"(<svg[^>]*?) width=\"[^\"]*\" height=\"[^\"]*\"", r"\1", svg, count=1)
    for colour, name in VARIABLES.items():
        svg = svg.replace(colour, f"var({name})")
    told = f'<title id="{chart.key}-title">{escape(chart.title)}</title>'
    told += f'<desc id="{chart.key}-desc">{escape(chart.description())}</desc>'
    named = f'<svg role="img" aria-labelledby="{chart.key}-title {chart.key}-desc"'
    svg = svg.replace("<svg", named, 1)
    head = svg.index(">") + 1
    return svg[:head] + told + svg[head:]


def _draw(chart: Chart, colours: Mapping[str, str | None]) -> "Figure":
    """The chart in the given colours; None keeps the stand-ins of VARIABLES."""
    from matplotlib.figure import Figure

    ink, soft, grid, *runs = (colours[name] or name for name in VARIABLES)
    bars = BAR * (len(chart.labels) * len(chart.bars) * 0.6 + 3)
    height = max(SIZE[1], bars) if chart.bars else SIZE[1]
    figure = Figure(figsize=(SIZE[0], height))
    # Not "constrained": that draws each figure several times
    figure.subplots_adjust(0.25 if chart.bars else 0.17, 0.5 / height, 0.96, 1 - 0.3 / height)
    axes = figure.add_subplot()
    for line in chart.lines:
        _draw_line(axes, line, runs[line.run])
    if chart.bars:
        _draw_bars(axes, chart, runs)
    else:
        _scale(axes, chart)
    axes.grid(True, axis="x" if chart.bars else "both", color=grid, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(which="both", colors=soft, labelcolor=soft)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(grid)
    for axis in (axes.xaxis, axes.yaxis):
        axis.label.set_color(soft)
    axes.legend(frameon=False, labelcolor=ink, fontsize=9)
    return figure


def _scale(axes: "Axes", chart: Chart) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_xlabel("optimizer step")
    axes.set_ylabel(chart.unit)
    if chart.ratio:
        axes.set_ylim(-0.03, 1.03)
    if chart.logarithmic:
        axes.set_yscale("log")
    formatter = FuncFormatter(lambda value, _: f"{value:,.6g}")
    axes.yaxis.set_major_formatter(formatter)
    if chart.logarithmic:
        axes.yaxis.set_minor_formatter(FuncFormatter(lambda value, _: ""))


def _draw_line(axes: "Axes", line: Line, colour: str) -> None:
    steps, values = line.curve
    style = dict(STYLES[line.style])
    few = len(steps) <= FEW
    if len(steps) == 1:
        style.setdefault("marker", "o")
    elif not few:
        style.pop("marker", None)
    axes.plot(steps, values, color=colour, label=line.label, **style)
    if line.intervals and few:
        # Rounding may put an end on the wrong side of its value
        ends = [
            [max(0.0, value - low) for value, (low, _) in zip(values, line.intervals, strict=True)],
            [max(0.0, high - value) for value, (_, high) in zip(values, line.intervals, strict=True)],
        ]
        axes.errorbar(steps, values, yerr=ends, fmt="none", color=colour, ecolor=colour, capsize=3, linewidth=1)
    elif line.intervals:
        lows, highs = ([ends[k] for ends in line.intervals] for k in (0, 1))
        axes.fill_between(steps, lows, highs, color=colour, alpha=0.2, linewidth=0)


def _draw_bars(axes: "Axes", chart: Chart, runs: list[str]) -> None:
    from matplotlib.ticker import PercentFormatter

    height = 0.84 / len(chart.bars)
    for place, bar in enumerate(chart.bars):
        offset = (place - (len(chart.bars) - 1) / 2) * height
        at = [k + offset for k in range(len(chart.labels))]
        axes.barh(at, bar.shares, height, label=bar.label, color=runs[bar.run], alpha=0.45 if bar.pale else 1.0)
    axes.set_yticks(range(len(chart.labels)), chart.labels)
    axes.invert_yaxis()
    axes.set_xlim(0, max(itertools.chain.from_iterable(bar.shares for bar in chart.bars)) * 1.05)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_xlabel("share of rows, or of answers")
    axes.set_ylabel(chart.unit)


def png_names(charts: list[Chart]) -> list[str]:
    """Return the names of the PNG files."""
    return [f"{chart.key}.png" for chart in charts]


def write_pngs(charts: list[Chart], folder: Path) -> None:
    """Write a PNG of each chart into a folder. Raises OSError."""
    for chart, name in zip(charts, png_names(charts), strict=True):
        write_png(chart, folder / name)
