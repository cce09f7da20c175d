"""The report as one HTML page in one file: no script, no font, no image, no network."""

import json
import shlex
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from commands.run_report.answers import Sample, shortened
from commands.run_report.charts import Chart
from commands.run_report.compare_runs import MARKS, Change, Outcome, differences, outcomes
from commands.run_report.read import RunRecord
from datamodules.preview.html import STYLE
from lightning_modules.evaluation.statistics import Interval, accuracy_interval
from lightning_modules.evaluation.summary import label, ordered, shown
from visible import visible

GENERATOR = '<meta name="generator" content="Thinkwright report">'  # a file with it may be replaced
STEPS_SHOWN = 8  # validations whose samples the page shows
ROWS_SHOWN = 6  # their rows
NOTHING = '<p class="soft">Nothing is known of this.</p>'
MORE_STYLE = """
.charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,24rem),1fr));gap:1rem 1.5rem}
figure{margin:0}figcaption{font-size:.9rem}figcaption b{display:block}
svg *{stroke-linejoin:round}svg text{dominant-baseline:auto}
.key{vertical-align:-.05em}
h3{font-size:1rem;margin:1rem 0 .25rem}
.missing{border-left:4px solid var(--second)}.missing ul{margin:.3rem 0 0;padding-left:1.2rem}
.name,li{overflow-wrap:anywhere}details{margin:.6rem 0}.text{margin:.4rem 0 .8rem;max-height:32rem;overflow-y:auto}
:focus-visible{outline:3px solid var(--first);outline-offset:2px}
"""


def page(runs: Sequence[RunRecord], charts: Sequence[Chart], drawn: Sequence[str], version: str) -> str:
    """Return the page of one or two runs. `drawn`: an SVG element for each of the charts."""
    names = " and ".join(_text(run.name) for run in runs)
    parts = [_missing(runs)]
    for title in dict.fromkeys(chart.section for chart in charts):
        figures = [_figure(*one) for one in zip(charts, drawn, strict=True) if one[0].section == title]
        parts.append(_section(title, f'<div class="charts">{"".join(figures)}</div>'))
    parts += [
        _section("Before and after training", _figures(runs)),
        _section("Evaluations", _evaluations(runs)),
        _section("Gained and lost questions", *map(_outcome, outcomes(runs)) or [NOTHING]),
        _section("Samples over time", *(_samples(runs, place) for place in range(len(runs)))),
        _section("Settings, versions, command", _changed_settings(runs), *map(_facts, MARKS, runs)),
    ]
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
{GENERATOR}
<title>Report of {names}</title>
<style>{STYLE}{MORE_STYLE}</style>
</head>
<body><main>
<h1>Report</h1>
{"".join(_title(runs, place) for place in range(len(runs)))}
{"".join(parts)}
<p class="soft">Thinkwright {_text(version)}</p>
</main></body>
</html>
"""


def _text(text: Any, lines: bool = False) -> str:
    """Text of a file, safe between tags and in an attribute."""
    return escape(visible(str(text), lines=lines))


def _section(title: str, *parts: str) -> str:
    return f"<section><h2>{title}</h2>{''.join(parts) or NOTHING}</section>\n"


def _of(runs: Sequence[RunRecord], place: int) -> str:
    return f" ({MARKS[place]})" if len(runs) > 1 else ""


def _title(runs: Sequence[RunRecord], place: int) -> str:
    """The name and the state of a run. With two runs a key tells its colour."""
    key = f'<i class="key {("first", "second")[place]}"></i>{MARKS[place]}: ' if len(runs) > 1 else ""
    run = runs[place]
    return f'<p class="name">{key}<b>{_text(run.name)}</b> <span class="soft">{_text(run.state)}</span></p>'


def _missing(runs: Sequence[RunRecord]) -> str:
    lines = [f"<li>{_text(line)}{_of(runs, place)}</li>" for place, run in enumerate(runs) for line in run.missing]
    return f'<section class="missing"><h2>What is missing</h2><ul>{"".join(lines)}</ul></section>\n' if lines else ""


def _figure(chart: Chart, svg: str) -> str:
    scale = " (logarithmic)" if chart.logarithmic else ""
    note = f'<span class="soft">{escape(chart.note)}</span>' if chart.note else ""
    return f"<figure><figcaption><b>{escape(chart.title)}{scale}</b>{note}</figcaption>{svg}</figure>"


def _table(columns: Sequence[str], lines: Sequence[Sequence[str]], numbers: bool = True) -> str:
    """A table; with `numbers` all columns but the first are numbers. Cells are HTML."""
    kind = ' class="n"' if numbers else ""
    head = "".join(f'<th scope="col"{kind if k else ""}>{cell}</th>' for k, cell in enumerate(columns))
    body = ""
    for first, *others in lines:
        body += f'<tr><th scope="row">{first}</th>{"".join(f"<td{kind}>{cell}</td>" for cell in others)}</tr>'
    return f'<div class="scroll" tabindex="0"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _figures(runs: Sequence[RunRecord]) -> str:
    """The figures of the best checkpoint beside those from before training."""
    columns = {
        f"{name}{_of(runs, place)}": figures
        for place, run in enumerate(runs)
        for name, figures in (("before", run.before), ("after", run.after))
        if figures
    }
    if not columns:
        return ""
    names = ordered({name for figures in columns.values() for name in figures})
    counted = {name: next(one for one in columns.values() if name in one) for name in names}
    lines = [
        [_text(label(name, counted[name])), *(_text(shown(name, one.get(name))) for one in columns.values())]
        for name in names
    ]
    return _table(["", *columns], lines)


def _evaluations(runs: Sequence[RunRecord]) -> str:
    lines = []
    for place, run in enumerate(runs):
        for one in run.evaluations:
            verdicts = list(one.verdicts().values())
            if not verdicts:
                continue
            right = sum(map(sum, verdicts)) / sum(map(len, verdicts))
            tokens = [answer.tokens for answer in one.answers if answer.tokens is not None]
            formed = [answer.well_formed for answer in one.answers if answer.well_formed is not None]
            lines.append(
                [
                    _text(one.name) + _of(runs, place),
                    f"{len(verdicts):,}",
                    f"{len(one.answers):,}",
                    f"{right:.1%}",
                    Interval(*accuracy_interval(verdicts)).percent(),
                    f"{sum(formed) / len(formed):.1%}" if formed else "–",
                    f"{sum(tokens) / len(tokens):,.0f}" if tokens else "–",
                ]
            )
    columns = ["", "questions", "answers", "right", "95 % interval", "well-formed", "tokens"]
    return _table(columns, lines) if lines else ""


def _outcome(one: Outcome) -> str:
    parts = [f"<h3>{_text(one.title)}</h3>", *(f"<p>{_text(line)}</p>" for line in one.lines)]
    parts += [_change(f"gained {change.question}", change, one) for change in one.gained]
    parts += [_change(f"lost {change.question}", change, one) for change in one.lost]
    parts += [f'<p class="soft">{one.further:,} further questions changed.</p>'] if one.further else []
    return "".join(parts)


def _change(title: str, change: Change, of: Outcome) -> str:
    texts = {"right answer": change.reference, of.first: change.first, of.second: change.second}
    return _details(title, "".join(_block(name, text) for name, text in texts.items() if text))


def _details(title: str, body: str) -> str:
    return f"<details><summary>{_text(title)}</summary>{body}</details>"


def _block(title: str, text: str) -> str:
    # A block that scrolls can be reached by the keyboard
    shown_text = _text(shortened(text), lines=True)
    return f'<p class="soft">{_text(title)}</p><div class="text" tabindex="0" role="group">{shown_text}</div>'


def _samples(runs: Sequence[RunRecord], place: int) -> str:
    """The answers to each row, by step: of the first validation, the last one, and some between them."""
    run = runs[place]
    by_row: dict[str, list[Sample]] = {}
    for one in run.samples:
        by_row.setdefault(one.row, []).append(one)
    parts = []
    for row, samples in list(by_row.items())[:ROWS_SHOWN]:
        chosen = evenly(samples, STEPS_SHOWN)
        body = _block("given", samples[-1].given) + _block("reference", samples[-1].reference)
        body += "".join(_block(f"step {one.step:,}: {one.verdict}", one.written) for one in chosen)
        left_out = len(samples) - len(chosen)
        body += f'<p class="soft">{left_out:,} validations between them are in samples.md.</p>' if left_out else ""
        parts.append(_details(f"row {row}{_of(runs, place)}", body))
    if len(by_row) > ROWS_SHOWN:
        parts.append(f'<p class="soft">{len(by_row) - ROWS_SHOWN:,} further rows are in samples.md.</p>')
    return "".join(parts)


def evenly(samples: Sequence[Sample], most: int) -> list[Sample]:
    """Return at most `most` samples (2 or more), with the first and the last one."""
    if len(samples) <= most:
        return list(samples)
    return [samples[round(k * (len(samples) - 1) / (most - 1))] for k in range(most)]


def _changed_settings(runs: Sequence[RunRecord]) -> str:
    if len(runs) < 2 or not all(run.settings for run in runs):
        return ""
    found = differences(*(run.settings for run in runs))
    if not found:
        return "<p>Both runs have the same settings.</p>"
    return "<h3>Settings that differ</h3>" + _table(
        ["", *MARKS], [[_text(shortened(cell)) for cell in line] for line in found], numbers=False
    )


def _facts(mark: str, run: RunRecord) -> str:
    """The commands, the versions and the settings of a run."""
    parts = [f'<h3 class="name">{_text(run.name)}</h3>']
    for start in run.starts:
        command = start.get("command")
        parts.append(_block("command", shlex.join(map(str, command))) if isinstance(command, list) else "")
    if run.starts:
        newest = run.starts[-1]
        lines = [[_text(key), _text(value)] for key, value in _flat(newest) if not key.startswith("command")]
        parts.append(_details("versions and machine", _table(["", ""], lines, numbers=False)))
    if run.config:
        parts.append(_details("config.yaml", _block("all settings", run.config[:200_000])))
    return "".join(parts)


def _flat(value: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """The leaves of a JSON object, as one name and one text each."""
    found = []
    for key, one in value.items():
        if isinstance(one, dict) and one:
            found += _flat(one, f"{prefix}{key} ")
        else:
            found.append((f"{prefix}{key}", one if isinstance(one, str) else json.dumps(one)))
    return found
