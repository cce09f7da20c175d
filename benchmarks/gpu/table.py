"""The results as one table in Markdown, and as a line for docs/hardware.md."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.gpu.jobs import PARTS

HEADLINES = {"4096 packed": "4096 packed, bfloat16", "512 packed": "512 packed, bfloat16"}  # of docs/hardware.md


def newest(results: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the last result of each job, in the order of the parts."""
    last = {(one["part"], one["job"]): one for one in results if "job" in one}
    return sorted(last.values(), key=lambda one: PARTS.index(one["part"]))


def markdown(results: Sequence[Mapping[str, Any]]) -> str:
    """Return the table. A job without figures says why."""
    lines = ["| part | job | figure | result |", "|---|---|---|---|"]
    for one in newest(results):
        told = one["figures"] or {"": "no figures"}
        if one["problem"]:
            told = {**one["figures"], "": one["problem"]}
        for name, value in told.items():
            lines.append(f"| {one['part']} | {_cell(one['job'])} | {_cell(name)} | {_cell(value)} |")
    heads = sorted({f"{one['machine']}; {one['commit']}; {one['date']}" for one in newest(results)})
    return "\n".join([*lines, "", *heads])


def hardware_row(results: Sequence[Mapping[str, Any]]) -> str:
    """Return the line of docs/hardware.md: device, the headline figures, versions, commit and date."""
    known = {one["job"]: one for one in newest(results) if one["part"] == "speed"}
    if not known:
        return ""
    cells = []
    for job in HEADLINES.values():
        ours = known.get(job, {}).get("figures", {})
        cells += [_found(r"MFU ([\d.]+)", ours.get("ours")), _found(r"([\d.]+) GB", ours.get("ours"))]
        faster = [_found(r"ours ([\d.]+) times", text) for side, text in ours.items() if side.startswith("trl")]
        cells.append(min((one for one in faster if one != "–"), key=float, default="–"))
    one = next(iter(known.values()))
    device, _, versions = one["machine"].partition("; ")
    return f"| {device} | {' | '.join(cells)} | {versions} | {one['commit']}, {one['date']} |"


def _found(pattern: str, text: str | None) -> str:
    found = re.search(pattern, text or "")
    return found[1] if found else "–"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
