"""The figures of a job, from what it wrote: each a name and a text for the table."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.gpu.jobs import Part

COUNTS = re.compile(r"\d+ (?:passed|failed|skipped|errors?|xfailed|deselected)")
MEMORY = re.compile(r"^(\S.*?)\s{2,}([\d,]+)\s+([\d,]+)\s+(\d+\.\d+)", re.MULTILINE)
FAILED_MEMORY = re.compile(r"^(\S.*?)\s+failed\s+([\d,]+)", re.MULTILINE)


def figures(part: Part, output: str, out: Path) -> dict[str, str]:
    """Return name -> figure. `output` is what the process printed, `out` the file or folder of its own results."""
    return dict(READERS[part](output, out))


def _tests(output: str, out: Path) -> Iterator[tuple[str, str]]:
    last = output.strip().rpartition("\n")[2]
    if found := COUNTS.findall(last):
        yield "tests", ", ".join(found)
    for line in output.splitlines():
        if line.startswith(("FAILED", "ERROR")):
            yield line.partition(" - ")[0], "failed"


def _speed(output: str, out: Path) -> Iterator[tuple[str, str]]:
    for line in _lines(out):
        if "largest" in line:
            yield f"{line['case']['side']}, rows at most", str(line["largest"])
        for side, known in line.get("summary", {}).get("sides", {}).items():
            yield side, ", ".join(_side(known)) or "; ".join(known["errors"])[:200] or "no figures"
            for group, seconds in (known.get("groups") or {}).items():
                yield f"{side}, {group}", f"{seconds:.3f} s"


def _side(known: dict[str, Any]) -> Iterator[str]:
    for key, text in SIDE.items():
        if (value := known.get(key)) is not None:
            yield text.format(value)
    if known.get("counts") is False:
        yield "INVALID: LOSSES DIFFER"
    if known.get("out_of_memory"):
        yield "out of memory"


SIDE = {
    "tokens_per_second": "{:,.0f} tokens/s", "mfu": "MFU {:.3f}", "peak_gb": "{:.1f} GB",
    "ours_faster_by": "ours {:.2f} times as fast", "ours_memory": "with {:.2f} of the memory",
    "loss_apart": "losses {:.1e} apart",
}  # fmt: skip


def _memory(output: str, out: Path) -> Iterator[tuple[str, str]]:
    for name, measured, estimated, ratio in MEMORY.findall(output):
        yield name, f"measured {measured} MB, estimated {estimated} MB, ratio {ratio}"
    for name, estimated in FAILED_MEMORY.findall(output):
        yield name, f"failed; estimated {estimated} MB"


def _generate(output: str, out: Path) -> Iterator[tuple[str, str]]:
    for line in _lines(out):
        rate = line["tokens"] / line["seconds"]
        yield f"{line['setting']}, {line['way']}", f"{rate:,.0f} tokens/s, {line['peak_mb']:,.0f} MB beside the weights"


def _learn(output: str, out: Path) -> Iterator[tuple[str, str]]:
    for path in out.glob("*/*/summary.json"):
        found = json.loads(path.read_text(encoding="utf-8"))
        for stage in ("before", "after"):
            known = found.get(stage, {})
            if known:
                yield stage, f"{100 * known['answer_match']:.1f} % right, loss {known['loss']:.4f}"
        if "time" in found:
            yield "time", f"{found['time']['seconds']:.0f} s, {100 * found['time']['not_training']:.0f} % not training"


def _lines(out: Path) -> Iterator[dict[str, Any]]:
    if out.is_file():
        yield from map(json.loads, out.read_text(encoding="utf-8").splitlines())


READERS: dict[Part, Callable[[str, Path], Iterator[tuple[str, str]]]] = {
    "tests": _tests, "speed": _speed, "memory": _memory, "generate": _generate, "learn": _learn,
}  # fmt: skip
