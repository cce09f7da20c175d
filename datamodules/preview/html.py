"""The preview as one HTML page that needs nothing beside itself: no script, no font, no image, no network.

The charts are SVG in percentages of their width, so that their text keeps its size on a narrow screen.
"""

from collections.abc import Mapping, Sequence
from html import escape

from datamodules.prepare.stats import IDS_PER_REASON, STEP_EDGES, TOKEN_EDGES, DataStats
from datamodules.preview.terminal import (
    LABELS,
    Decode,
    Row,
    bars,
    figures,
    pieces,
    suggestion,
    supervised_share,
    visible,
)
from datamodules.text.segments import Role

LINE, LEFT, RIGHT = 24, 27, 88  # height of a bar's line in pixels; where bars begin and may end, in percent
# Blue, yellow and violet differ for every kind of colour vision, in lightness and in shape, too; text has a contrast
# of 4.5 or more
STYLE = """
:root{color-scheme:light dark;--page:#f6f7f9;--card:#fff;--ink:#1c2127;--soft:#59636e;--line:#dfe3e8;--first:#1f6fb8;
--second:#b07d00;--over:#84909c;--prompt:#68727d;--thought:#dcebfb;--thought-ink:#0b2e52;--tag:#6d3194;--tag-ink:#fff;
--answer:#fff0b5;--answer-ink:#403000;--answer-line:#b38600;--end:#24292f;--end-ink:#fff}
@media(prefers-color-scheme:dark){:root{--page:#101418;--card:#181d23;--ink:#e4e8ec;--soft:#a3adb8;--line:#303842;
--first:#5aa9ee;--second:#e0b03a;--over:#6f7b88;--prompt:#98a3ae;--thought:#12365c;--thought-ink:#d3e8ff;--tag:#cda3e9;
--tag-ink:#240b36;--answer:#4b3b00;--answer-ink:#ffeab0;--answer-line:#d8a900;--end:#e4e8ec;--end-ink:#101418}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,
"DejaVu Sans",sans-serif}
main{max-width:68rem;margin:0 auto;padding:2rem 1.25rem 4rem}
h1{font-size:1.7rem;line-height:1.2;margin:0}h2{font-size:1.15rem;margin:0 0 .75rem}
p{margin:.4rem 0}.soft{color:var(--soft);font-size:.9rem}
section,.figures div{background:var(--card);border:1px solid var(--line);border-radius:10px}
section{padding:1.25rem;margin-top:1.25rem}
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(9.5rem,1fr));gap:.75rem;margin:1.25rem 0 0}
.figures div{padding:.7rem 1rem}.figures dt{color:var(--soft);font-size:.85rem}
.figures dd{margin:0;font-size:1.4rem;font-weight:600;font-variant-numeric:tabular-nums}
.two{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,26rem),1fr));gap:0 1.25rem}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:.92rem;font-variant-numeric:tabular-nums}
th,td{padding:.4rem .7rem .4rem 0;text-align:left;vertical-align:top;border-bottom:1px solid var(--line)}
th{color:var(--soft);font-weight:600}.n{text-align:right;white-space:nowrap;padding-right:1.4rem}
td{overflow-wrap:anywhere}tr.chosen td{font-weight:700}
.legend{display:flex;flex-wrap:wrap;gap:.4rem .6rem;margin:0 0 1rem;padding:0;list-style:none;font-size:.85rem}
.text{margin:.5rem 0 1.25rem;padding:1rem;border:1px solid var(--line);border-radius:8px;white-space:pre-wrap;
overflow-wrap:anywhere;font:.86rem/1.75 ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace}
summary{cursor:pointer;font-weight:600;overflow-wrap:anywhere}
.prompt,.thought,.tag_open,.tag_close,.answer,.end{padding:.1em 0;box-shadow:inset 1px 0 var(--card)}
.legend span{padding:.1rem .5rem}
.prompt{color:var(--prompt)}.thought{background:var(--thought);color:var(--thought-ink)}
.tag_open,.tag_close{background:var(--tag);color:var(--tag-ink);border-radius:4px}
.answer{background:var(--answer);color:var(--answer-ink);border-bottom:2px solid var(--answer-line)}
.end{background:var(--end);color:var(--end-ink);border-radius:4px}
svg{display:block;width:100%;overflow:visible;font-size:12.5px;font-variant-numeric:tabular-nums}
svg text{fill:var(--ink);dominant-baseline:central}svg .axis{fill:var(--soft)}
.first{fill:var(--first)}.second{fill:var(--second)}.over{fill:var(--over)}.grid{stroke:var(--line)}
.r-prompt{fill:var(--over);background:var(--over)}.r-thought{fill:var(--first);background:var(--first)}.r-tag_open,.r-tag_close{fill:var(--tag);background:var(--tag)}
.r-answer{fill:var(--second);background:var(--second)}.r-end{fill:var(--end);background:var(--end)}
.key{display:inline-block;width:.8em;height:.8em;border-radius:2px;margin:0 .4em 0 0}.key~.key{margin-left:.9em}
.key.first{background:var(--first)}.key.second{background:var(--second)}.key.over{background:var(--over)}
"""


def page(
    rows: Sequence[Row], report: DataStats, decode: Decode, max_length: int, facts: Mapping[str, str] | None = None
) -> str:
    """The page: `rows` as examples, what the report counted, and `facts` (name to value) under the title."""
    kept = sum(report.kept.values())
    counts = {**figures(report), "tokens kept": sum(report.tokens.values())}
    shown = {**{name: f"{count:,}" for name, count in counts.items()}, "supervised": f"{supervised_share(report):.1%}"}
    told = " · ".join(f"{name} <b>{_text(value)}</b>" for name, value in (facts or {}).items())
    cards = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in shown.items())
    lengths, steps = bars(TOKEN_EDGES, report.lengths), bars(STEP_EDGES, report.steps)
    sections = [
        _section("Examples, token by token", _legend(), *(_example(row, decode) for row in rows)),
        _section("What was left out, and why", *_dropped(report)),
        _section("Kept, though untidy", _notes(report, kept)) if report.notes else "",
        '<div class="two">',
        _section(
            "Tokens of a row",
            _chart("Rows by tokens of a row", "tokens", lengths, max_length),
            f'<p class="soft"><i class="key over"></i>longer than data.max_length, {max_length:,}</p>'
            if any(lower > max_length for _, lower, _ in lengths)
            else "",
        ),
        _section("Steps of an answer", _chart("Rows by steps of an answer", "steps", steps)),
        "</div>",
        _section("Which length?", _lengths(report, max_length)),
        _section("Tokens by role", *_roles(report)),
    ]
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Preview of the data</title>
<style>{STYLE}</style>
</head>
<body><main>
<h1>Preview of the data</h1>
<p class="soft">{told}</p>
<dl class="figures">{cards}</dl>
{"".join(sections)}
</main></body>
</html>
"""


def _text(text: str) -> str:
    """Safe between tags and in an attribute, whatever a row has in it."""
    return escape(visible(text))


def _section(title: str, *content: str) -> str:
    return f"<section><h2>{title}</h2>{''.join(content)}</section>\n"


def _legend() -> str:
    items = (f'<li><span class="{role.name.lower()}">{LABELS[role]}</span></li>' for role in Role)
    note = '<li class="soft">All but the prompt is supervised. Each token tells its id; ⏎ is a line end.</li>'
    return f'<ul class="legend" aria-label="Roles">{"".join(items)}{note}</ul>'


def _example(row: Row, decode: Decode) -> str:
    """The text as the model sees it, a span for each token, open at first."""
    spans = []
    for start, stop, role, text in pieces(row.outcome, decode):
        ids = " ".join(map(str, row.outcome.ids[start:stop]))
        what = f"id {ids} · {role.name} · {'not ' if role == Role.PROMPT else ''}supervised"
        spans.append(f'<span class="{role.name.lower()}" title="{what}">{_text(text)}</span>')
    about = f"row {row.position:,} · {row.outcome.row_id} · {row.source} · {row.split or 'left out'}"
    size = f"{row.outcome.length:,} tokens, {row.outcome.supervised:,} supervised, {row.outcome.steps:,} steps"
    summary = f'<summary>{_text(about)} <span class="soft">{size}</span></summary>'
    return f'<details open>{summary}<div class="text">{"".join(spans)}</div></details>'


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], chosen: Sequence[int] = ()) -> str:
    """Cells are HTML; the second and third column are numbers, the rows at `chosen` stand out."""

    def line(tag: str, cells: Sequence[str]) -> str:
        kinds = (' class="n"' if place in (1, 2) else "" for place in range(len(cells)))
        return "".join(f"<{tag}{kind}>{cell}</{tag}>" for kind, cell in zip(kinds, cells, strict=True))

    marks = (' class="chosen"' if place in chosen else "" for place in range(len(rows)))
    body = (f"<tr{mark}>{line('td', cells)}</tr>" for mark, cells in zip(marks, rows, strict=True))
    head = f"<thead><tr>{line('th', columns)}</tr></thead>"
    return f'<div class="scroll"><table>{head}<tbody>{"".join(body)}</tbody></table></div>'


def _dropped(report: DataStats) -> tuple[str, ...]:
    rows = []
    for reason, count in sorted(report.dropped.items(), key=lambda item: -item[1]):
        named = ", ".join(report.dropped_ids.get(reason, [])) + (", …" if count > IDS_PER_REASON else "")
        rows.append((_text(reason), f"{count:,}", f"{count / max(report.read, 1):.1%}", _text(named)))
    if not rows:
        return ("<p>No row was left out.</p>",)
    return (_table(("reason", "rows", "of those read", "their ids"), rows),)


def _notes(report: DataStats, kept: int) -> str:
    rows = [(_text(note), f"{count:,}", f"{count / max(kept, 1):.1%}") for note, count in sorted(report.notes.items())]
    return _table(("kept with", "rows", "of those kept"), rows)


def _chart(name: str, unit: str, found: Sequence[tuple[str, int, int]], limit: int | None = None) -> str:
    """A bar for each (label, lower bound, rows); bars wholly above `limit` are grey."""
    most = max((count for _, _, count in found), default=1)
    height = LINE * (len(found) + 2)
    parts = [f'<text class="axis" x="{LEFT - 2}%" y="10" text-anchor="end">{unit}</text>']
    for tick in _ticks(most):
        x, y = LEFT + tick / most * (RIGHT - LEFT), height - LINE
        parts.append(f'<line class="grid" x1="{x:.2f}%" x2="{x:.2f}%" y1="{LINE - 4}" y2="{y}"/>')
        parts.append(f'<text class="axis" x="{x:.2f}%" y="{y + 12}" text-anchor="middle">{tick:,}</text>')
    parts.append(f'<text class="axis" x="100%" y="{height - LINE + 12}" text-anchor="end">rows</text>')
    for place, (label, lower, count) in enumerate(found, 1):
        over = limit is not None and lower > limit
        bar = _bar(count / most, place * LINE, LINE - 6, "over" if over else "first", f"{label} {unit}: {count:,} rows")
        x, y = LEFT + count / most * (RIGHT - LEFT) + 1, place * LINE + 9
        parts.append(f'<text x="{LEFT - 2}%" y="{y}" text-anchor="end">{label}</text>{bar}')
        parts.append(f'<text x="{x:.2f}%" y="{y}">{count:,}</text>')
    told = f"{name}: " + ", ".join(f"{label}: {count:,}" for label, _, count in found)
    return f'<svg role="img" aria-label="{told}" height="{height}">{"".join(parts)}</svg>'


def _ticks(most: int) -> range:
    """Three to six round numbers from 0 on, none above `most`."""
    steps = (factor * 10**power for power in range(12) for factor in (1, 2, 5))
    return range(0, most + 1, next(step for step in steps if most / step <= 5))


def _bar(share: float, y: float, height: float, kind: str, title: str) -> str:
    width = share * (RIGHT - LEFT)
    return (
        f'<rect class="{kind}" x="{LEFT}%" y="{y}" width="{width:.2f}%" height="{height}" rx="2">'
        f"<title>{title}</title></rect>"
    )


def _lengths(report: DataStats, max_length: int) -> str:
    """Two bars for each length, their table, and the length that they suggest."""
    rows, parts, told = [], [], []
    table = list(report.length_table())
    for place, (length, whole, closed) in enumerate(table):
        y = place * 2 * LINE
        parts.append(f'<text x="{LEFT - 2}%" y="{y + 20}" text-anchor="end">{length:,} tokens</text>')
        for share, kind, at, what in ((whole, "first", 2, "rows whole"), (closed, "second", 22, "with closing tag")):
            parts.append(_bar(share, y + at, 18, kind, f"{length:,} tokens: {share:.1%} {what}"))
            parts.append(f'<text x="{LEFT + share * (RIGHT - LEFT) + 1:.2f}%" y="{y + at + 9}">{share:.0%}</text>')
        rows.append((f"{length:,}", f"{whole:.1%}", f"{closed:.1%}"))
        told.append(f"{length:,} tokens: {whole:.0%} whole, {closed:.0%} with closing tag")
    chosen = [place for place, (length, _, _) in enumerate(table) if length == report.suggested_length()]
    keys = '<i class="key first"></i>rows whole <i class="key second"></i>thinking rows with their last closing tag'
    svg = f'<svg role="img" aria-label="{"; ".join(told)}" height="{len(table) * 2 * LINE}">{"".join(parts)}</svg>'
    columns = ("tokens", "rows whole", "with their closing tag")
    suggested = f"<p><b>{suggestion(report, max_length)}</b></p>"
    return f'{suggested}<p class="soft">{keys}</p><div class="two">{svg}{_table(columns, rows, chosen)}</div>'


def _roles(report: DataStats) -> tuple[str, str]:
    """One bar of all tokens kept, and the same as a table."""
    total = max(sum(report.role_tokens.values()), 1)
    rows, parts, told, x = [], [], [], 0.0
    for role in Role:
        count = report.role_tokens.get(role.name.lower(), 0)
        share = 100 * count / total
        supervised = "no" if role == Role.PROMPT else "yes"
        parts.append(
            f'<rect class="r-{role.name.lower()}" x="{x:.2f}%" width="{share:.2f}%" height="26">'
            f"<title>{LABELS[role]}: {count:,} tokens, {share:.1f}%</title></rect>"
        )
        key = f'<i class="key r-{role.name.lower()}"></i>{LABELS[role]}'
        rows.append((key, f"{count:,}", f"{share:.1f}%", supervised))
        x += share
        told.append(f"{LABELS[role]} {share:.1f}%")
    svg = f'<svg role="img" aria-label="Share of the tokens: {", ".join(told)}" height="38">{"".join(parts)}</svg>'
    return svg, _table(("role", "tokens", "share", "supervised"), rows)
