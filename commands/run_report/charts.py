"""What each figure of the page shows, as plain data. A run has a colour, and what is drawn has a style."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from commands.run_report.compare_runs import MARKS
from commands.run_report.curves import Curve, thinned
from commands.run_report.read import RunRecord
from datamodules.prepare.stats import STEP_EDGES, TOKEN_EDGES
from lightning_modules.evaluation.statistics import wilson

WIDE = 30.0  # a loss that falls by this factor has a logarithmic axis
LOSSES = {
    "loss": "Loss per token",
    "loss_thought": "Loss in thoughts",
    "loss_answer": "Loss in answers",
    "loss_tag_open": "Loss of opening tags",
    "loss_tag_close": "Loss of closing tags",
    "loss_end": "Loss of the end",
}
TRAIN, VALIDATION = "training", "validation"


class Line(NamedTuple):
    """A curve of a run: `run` chooses the colour, `style` 0 a line, 1 dashes with points, 2 dots with squares."""

    label: str
    run: int
    style: int
    curve: Curve
    intervals: list[tuple[float, float]] = []  # noqa: RUF012  (low and high at each point, or none)


class Bars(NamedTuple):
    """The share of rows, or of answers, in each bar of a histogram, from 0 to 1. Pale bars are data."""

    label: str
    run: int
    pale: bool
    shares: list[float]


@dataclass(frozen=True)
class Chart:
    """A figure. `key` is its name in files, `section` the part of the page, `unit` that of its values."""

    key: str
    section: str
    title: str
    unit: str
    lines: list[Line] = field(default_factory=list)
    bars: list[Bars] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)  # of the bars
    ratio: bool = False  # the axis is from 0 to 1
    logarithmic: bool = False
    note: str = ""

    def description(self) -> str:
        """Return in words what the figure shows, for those who do not see it."""
        parts = []
        for one in self.lines:
            steps, values = one.curve
            low, high = min(values), max(values)
            first, last = f"{values[0]:.4g} at step {steps[0]:,}", f"{values[-1]:.4g} at step {steps[-1]:,}"
            course = f"from {first} to {last}, between {low:.4g} and {high:.4g}" if len(steps) > 1 else first
            ends = f" (95 % interval {one.intervals[-1][0]:.4g} to {one.intervals[-1][1]:.4g})" if one.intervals else ""
            parts.append(f"{one.label}: {course}{ends}")
        for bar in self.bars:
            shares = zip(self.labels, bar.shares, strict=True)
            parts.append(f"{bar.label}: " + ", ".join(f"{label}: {share:.1%}" for label, share in shares if share))
        axis = ", logarithmic" if self.logarithmic else ""
        return f"{self.title} ({self.unit}{axis}). {'. '.join(parts)}."


def charts(runs: Sequence[RunRecord]) -> list[Chart]:
    """Return the charts of one or two runs. A chart without figures in any of them is left out."""
    found = [_loss(runs, name, title) for name, title in LOSSES.items()]
    found += [
        _curves(
            runs, "tags", "Think tags", "Probability of the tags", "probability",
            {"val/tag_prob_open": ("opening", 1), "val/tag_prob_close": ("closing", 2)}, ratio=True,
            note="The mean probability of a tag at its place in the validation rows.",
        ),
        _curves(
            runs, "form", "Form and right answers", "Form", "ratio of answers",
            {"val/think_format": ("well-formed thinking", 1), "val/cut": ("cut off", 2)},
            ratio=True, intervals=True,
        ),
        _curves(
            runs, "right", "Form and right answers", "Right answers", "ratio of answers",
            {"val/answer_match": ("right", 1)}, ratio=True, intervals=True,
        ),
        _curves(runs, "thoughts", "Form and right answers", "Thoughts", "thoughts per answer",
                {"val/thoughts": ("generated", 1)}),
        _curves(runs, "rate", "Rate and gradient", "Learning rate", "rate", {"lr": ("rate", 0)}),
        _curves(runs, "gradient", "Rate and gradient", "Gradient", "norm before clipping",
                {"train/grad_norm": ("norm", 0)}),
        _curves(runs, "speed", "Speed and memory", "Throughput", "tokens per second",
                {"train/tokens_per_second": ("tokens per second", 0)}),
        _curves(runs, "memory", "Speed and memory", "Peak memory", "GB",
                {"train/peak_memory_gb": ("peak memory", 0)}, note="On a GPU that of tensors, else of the process."),
        _lengths(runs),
        _steps(runs),
    ]  # fmt: skip
    return [one for one in found if one.lines or one.bars]


def _label(runs: Sequence[RunRecord], run: int, text: str) -> str:
    return f"{MARKS[run]}: {text}" if len(runs) > 1 else text


def _loss(runs: Sequence[RunRecord], name: str, title: str) -> Chart:
    shown = {f"train/{name}": (TRAIN, 0), f"val/{name}": (VALIDATION, 1)}
    return _curves(runs, name.replace("_", "-"), "Loss", title, "nats per token", shown, wide=True)


def _curves(
    runs: Sequence[RunRecord],
    key: str,
    section: str,
    title: str,
    unit: str,
    shown: dict[str, tuple[str, int]],
    ratio: bool = False,
    intervals: bool = False,
    wide: bool = False,
    note: str = "",
) -> Chart:
    """A chart of figures by step. `shown`: {name of the figure: (its label, its style)}."""
    lines = []
    for place, run in enumerate(runs):
        for name, (label, style) in shown.items():
            if (curve := run.curves.get(name)) is not None:
                curve = thinned(curve)
                ends = _intervals(curve, run.curves.get("val/answered")) if intervals else []
                lines.append(Line(_label(runs, place, label), place, style, curve, ends))
    values = [value for one in lines for value in one.curve.values]
    logarithmic = wide and bool(values) and min(values) > 0 and max(values) > WIDE * min(values)
    note = f"{note} Bars: 95 % intervals (Wilson).".strip() if any(one.intervals for one in lines) else note
    return Chart(key, section, title, unit, lines, ratio=ratio, logarithmic=logarithmic, note=note)


def _intervals(curve: Curve, answered: Curve | None) -> list[tuple[float, float]]:
    """Wilson's interval at each point of a ratio; none if the number of answers is not known at each."""
    numbers = dict(zip(*answered, strict=True)) if answered is not None else {}
    known = all(numbers.get(step, 0) >= 1 for step in curve.steps) and all(0 <= value <= 1 for value in curve.values)
    pairs = zip(curve.steps, curve.values, strict=True)
    return [tuple(wilson(value * numbers[step], numbers[step])) for step, value in pairs] if known else []  # type: ignore[misc]


def _lengths(runs: Sequence[RunRecord]) -> Chart:
    notes = ["Data: whole rows with their prompts. Generated: responses of the newest evaluation."]
    for place, run in enumerate(runs):
        if run.response_tokens is not None:
            text = f"the mean response of the data has {run.response_tokens:,.0f} tokens"
            notes.append(f"{_label(runs, place, text)}.")
    generated = [_numbers(run, "tokens") for run in runs]
    return _histogram(runs, "lengths", "Tokens", "tokens", TOKEN_EDGES, [run.lengths for run in runs], generated, notes)


def _steps(runs: Sequence[RunRecord]) -> Chart:
    generated = [_numbers(run, "thoughts") for run in runs]
    notes = ["Data: think blocks of a row. Generated: thoughts of an answer."]
    return _histogram(runs, "steps", "Thoughts", "thoughts", STEP_EDGES, [run.steps for run in runs], generated, notes)


def _numbers(run: RunRecord, name: str) -> list[int]:
    newest = run.newest()
    found = [getattr(one, name) for one in newest.answers] if newest is not None else []
    return [one for one in found if one is not None]


def _histogram(
    runs: Sequence[RunRecord],
    key: str,
    title: str,
    unit: str,
    edges: Sequence[int],
    data: Sequence[list[int]],
    generated: Sequence[list[int]],
    notes: Sequence[str],
) -> Chart:
    """The rows of the data beside the generated answers, each by the same edges."""
    bars = []
    for place in range(len(runs)):
        counts = [0] * (len(edges) + 1)
        for number in generated[place]:
            counts[bisect_left(edges, number)] += 1
        for label, pale, some in (("data", True, data[place]), ("generated", False, counts)):
            if total := sum(some):
                bars.append(Bars(_label(runs, place, label), place, pale, [count / total for count in some]))
    used = [k for k in range(len(edges) + 1) if any(one.shares[k] for one in bars)]
    first, last = (min(used), max(used) + 1) if used else (0, 0)
    names = [_range(edges, k) for k in range(first, last)]
    bars = [one._replace(shares=one.shares[first:last]) for one in bars]
    return Chart(key, "Data and answers", title, unit, bars=bars, labels=names, note=" ".join(notes))


def _range(edges: Sequence[int], place: int) -> str:
    """The values that a bar counts, in words."""
    if place == len(edges):
        return f"over {edges[-1]:,}"
    low = edges[place - 1] + 1 if place else 0
    return f"{low:,}" if low == edges[place] else f"{low:,}–{edges[place]:,}"
