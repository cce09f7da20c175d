"""The preview as one HTML page in one file: no script, no font, no image, no network.

The charts are SVG. Their positions are percentages of the width, so text keeps its size on a narrow screen.
"""

from collections.abc import Mapping, Sequence
from html import escape

from datamodules.prepare.stats import STEP_EDGES, TOKEN_EDGES, DataStats
from datamodules.preview import content
from datamodules.preview.content import (
    Bar,
    Decode,
    PreviewRow,
    bars,
    dropped_table,
    is_supervised,
    layout_table,
    note_table,
    reading_lines,
    role_table,
    row_counts,
    suggestion,
    supervised_ratio,
    token_texts,
    with_marks,
)
from datamodules.text.segments import Role

LINE, LEFT, RIGHT = 24, 27, 88  # height of a bar's line in pixels; left and right limits of the bars in percent
# Blue, yellow and violet differ for every kind of colour vision, also in lightness and shape. Text has a contrast of at
# least 4.5 (WCAG 2.2, AA)
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
    rows: Sequence[PreviewRow],
    stats: DataStats,
    decode: Decode,
    max_length: int,
    facts: Mapping[str, str] | None = None,
) -> str:
    """The page: `facts` (name -> value) under the title, `rows` as examples, then the counts of the stats."""
    counts = {**row_counts(stats), "tokens kept": sum(stats.tokens.values())}
    shown = {**{name: f"{count:,}" for name, count in counts.items()}, "supervised": f"{supervised_ratio(stats):.1%}"}
    under_title = " · ".join(f"{name} <b>{_text(value)}</b>" for name, value in (facts or {}).items())
    cards = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in shown.items())
    lengths, steps = bars(TOKEN_EDGES, stats.lengths), bars(STEP_EDGES, stats.steps)
    sections = [
        _section("Examples, token by token", _legend(), *(_example(row, decode) for row in rows)),
        _section("Columns that were read", _layouts(stats)),
        _section("Dropped rows", _dropped(stats)),
        _section("Malformed responses that were kept", _notes(stats)) if stats.notes else "",
        '<div class="two">',
        _section(
            content.TOKENS_TITLE.capitalize(),
            _chart(f"Rows by {content.TOKENS_TITLE}", "tokens", lengths, max_length),
            f'<p class="soft"><i class="key over"></i>longer than data.max_length, {max_length:,}</p>'
            if any(bar.lower > max_length for bar in lengths)
            else "",
        ),
        _section(content.STEPS_TITLE.capitalize(), _chart(f"Rows by {content.STEPS_TITLE}", "steps", steps)),
        "</div>",
        _section("Which length?", _lengths(stats, max_length)),
        _section("Tokens by role", *_roles(stats)),
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
<p class="soft">{under_title}</p>
<dl class="figures">{cards}</dl>
{"".join(sections)}
</main></body>
</html>
"""


def _text(text: str) -> str:
    """Text of the data, safe between tags and in an attribute."""
    return escape(with_marks(text))


def _section(title: str, *parts: str) -> str:
    return f"<section><h2>{title}</h2>{''.join(parts)}</section>\n"


def _legend() -> str:
    items = (f'<li><span class="{role.name.lower()}">{content.ROLE_LABELS[role]}</span></li>' for role in Role)
    text = f"{content.SUPERVISED_NOTE.capitalize()}. Point at a token to see its id. {content.LINE_END_NOTE}."
    return f'<ul class="legend" aria-label="Roles">{"".join(items)}<li class="soft">{text}</li></ul>'


def _example(row: PreviewRow, decode: Decode) -> str:
    """The text as the model sees it, with a span for each token."""
    example, spans = row.example, []
    for start, stop, role, text in token_texts(example, decode):
        ids = " ".join(map(str, example.ids[start:stop]))
        about = f"id {ids} · {role.name} · {'' if is_supervised(role) else 'not '}supervised"
        spans.append(f'<span class="{role.name.lower()}" title="{about}">{_text(text)}</span>')
    size = f"{example.length:,} tokens, {example.supervised:,} supervised, {example.steps:,} steps"
    summary = f'<summary>{_text(row.title())} <span class="soft">{size}</span></summary>'
    return f'<details open>{summary}<div class="text">{"".join(spans)}</div></details>'


def _table(columns: Sequence[str], lines: Sequence[Sequence[str]], chosen: Sequence[int] = ()) -> str:
    """A table whose second and third column are numbers, with the lines at `chosen` in bold. Cells are HTML."""

    def line(tag: str, cells: Sequence[str]) -> str:
        kinds = (' class="n"' if place in (1, 2) else "" for place in range(len(cells)))
        return "".join(f"<{tag}{kind}>{cell}</{tag}>" for kind, cell in zip(kinds, cells, strict=True))

    marks = (' class="chosen"' if place in chosen else "" for place in range(len(lines)))
    body = (f"<tr{mark}>{line('td', cells)}</tr>" for mark, cells in zip(marks, lines, strict=True))
    head = f"<thead><tr>{line('th', columns)}</tr></thead>"
    return f'<div class="scroll"><table>{head}<tbody>{"".join(body)}</tbody></table></div>'


def _dropped(stats: DataStats) -> str:
    lines = [list(map(escape, cells)) for cells in dropped_table(stats)]
    if not lines:
        return f"<p>{content.NOTHING_DROPPED.capitalize()}.</p>"
    overlap = f'<p class="soft">{stats.overlap.capitalize()}.</p>' if stats.overlap else ""
    return _table(content.DROPPED_COLUMNS, lines) + overlap


def _layouts(stats: DataStats) -> str:
    lines = "".join(f"<p>{escape(line)}</p>" for line in reading_lines(stats))
    return lines + _table(content.LAYOUT_COLUMNS, [list(map(escape, cells)) for cells in layout_table(stats)])


def _notes(stats: DataStats) -> str:
    return _table(content.NOTE_COLUMNS, [list(map(escape, cells)) for cells in note_table(stats)])


def _chart(name: str, unit: str, found: Sequence[Bar], limit: int | None = None) -> str:
    """A horizontal bar chart. A bar is grey if all its values are above `limit`."""
    most = max((bar.rows for bar in found), default=1)
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
    alt_text = f"{name}: " + ", ".join(f"{label}: {count:,}" for label, _, count in found)
    return f'<svg role="img" aria-label="{alt_text}" height="{height}">{"".join(parts)}</svg>'


def _ticks(most: int) -> range:
    """Three to six round numbers from 0 to `most`."""
    steps = (factor * 10**power for power in range(12) for factor in (1, 2, 5))
    return range(0, most + 1, next(step for step in steps if most / step <= 5))


def _bar(ratio: float, y: float, height: float, kind: str, title: str) -> str:
    width = ratio * (RIGHT - LEFT)
    return (
        f'<rect class="{kind}" x="{LEFT}%" y="{y}" width="{width:.2f}%" height="{height}" rx="2">'
        f"<title>{title}</title></rect>"
    )


def _lengths(stats: DataStats, max_length: int) -> str:
    """The suggested length, and two bars and a table line for each length."""
    tokens_title, fitting_title, closed_title = content.LENGTH_COLUMNS
    lines, parts, alt_text = [], [], []
    table = list(stats.length_table())
    for place, (length, fitting, closed) in enumerate(table):
        y = place * 2 * LINE
        parts.append(f'<text x="{LEFT - 2}%" y="{y + 20}" text-anchor="end">{length:,} tokens</text>')
        for ratio, kind, offset, label in ((fitting, "first", 2, fitting_title), (closed, "second", 22, closed_title)):
            parts.append(_bar(ratio, y + offset, 18, kind, f"{length:,} tokens: {ratio:.1%} {label}"))
            x = LEFT + ratio * (RIGHT - LEFT) + 1
            parts.append(f'<text x="{x:.2f}%" y="{y + offset + 9}">{ratio:.0%}</text>')
        lines.append((f"{length:,}", f"{fitting:.1%}", f"{closed:.1%}"))
        alt_text.append(f"{length:,} tokens: {fitting:.0%} {fitting_title}, {closed:.0%} {closed_title}")
    chosen = [place for place, (length, _, _) in enumerate(table) if length == stats.suggested_length()]
    keys = f'<i class="key first"></i>{fitting_title} <i class="key second"></i>{closed_title}'
    svg = f'<svg role="img" aria-label="{"; ".join(alt_text)}" height="{len(table) * 2 * LINE}">{"".join(parts)}</svg>'
    suggested = f"<p><b>{suggestion(stats, max_length)}</b></p>"
    two = f'<div class="two">{svg}{_table((tokens_title, fitting_title, closed_title), lines, chosen)}</div>'
    return f'{suggested}<p class="soft">{keys}</p>{two}'


def _roles(stats: DataStats) -> tuple[str, str]:
    """One bar for all tokens kept, divided by role, and the same numbers as a table."""
    lines, parts, alt_text, x = [], [], [], 0.0
    for role, count, ratio in role_table(stats):
        name, label, width = role.name.lower(), content.ROLE_LABELS[role], 100 * ratio
        parts.append(
            f'<rect class="r-{name}" x="{x:.2f}%" width="{width:.2f}%" height="26">'
            f"<title>{label}: {count:,} tokens, {ratio:.1%}</title></rect>"
        )
        key = f'<i class="key r-{name}"></i>{label}'
        lines.append((key, f"{count:,}", f"{ratio:.1%}", "yes" if is_supervised(role) else "no"))
        x += width
        alt_text.append(f"{label} {ratio:.1%}")
    svg = f'<svg role="img" aria-label="Tokens by role: {", ".join(alt_text)}" height="38">{"".join(parts)}</svg>'
    return svg, _table((*content.ROLE_COLUMNS, "supervised"), lines)
