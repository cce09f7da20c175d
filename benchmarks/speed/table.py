"""The comparison of all sides, as figures and as a table."""

import statistics
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.speed.limit import least_seconds, needed, palm, read_config
from lightning_modules.run.flops import peak_flops

AGREE = 1e-3  # the most by which the losses of a step may differ

Result = dict[str, Any]


@dataclass
class Summary:
    figures: dict[str, Any]
    text: str


def rate(result: Result, warm: int) -> float | None:
    """Return supervised tokens/s after the warm-up."""
    if result.get("wall"):
        return float(result["timed_tokens"] / result["wall"])
    seconds, tokens = result.get("seconds", [])[warm:], result.get("tokens", [])[warm:]
    return sum(tokens) / sum(seconds) if seconds else None


def agreement(one: Result, other: Result) -> float | None:
    """Return the largest difference between the losses of a step."""
    pairs = list(zip(one.get("losses", []), other.get("losses", []), strict=False))
    return max(abs(a - b) for a, b in pairs) if pairs else None


def median(values: list[Any]) -> float | None:
    found = [v for v in values if v is not None]
    return statistics.median(found) if found else None


def shown(value: float | None, form: str) -> str:
    return f"{'-' if value is None else format(value, form):>10}"


def summarize(case: dict[str, Any], task: dict[str, Any], results: list[Result]) -> Summary:
    """Return the summary of one case. Ratios are medians over repetitions; peak memory is the highest of all runs."""
    config, warm = read_config(task["model"]), task["warm"]
    pairs = list(zip(task["lengths"], task["supervised"], strict=True))[warm:]
    flops = [needed(config, lengths, n, task["rank"], task["targets"]) for lengths, n in pairs]
    each = statistics.mean(sum(step.values()) for step in flops)
    rates = [r for r in results if r["name"] == "rates" and "body" in r]
    best = {group: max(r[group] for r in rates) for group in ("body", "head")} if rates else None
    least = statistics.mean(least_seconds(step, best) for step in flops) if best else None
    names = list(dict.fromkeys(r["name"] for r in results if r["name"] != "rates"))
    first = next((name for name in names if name.startswith("ours")), names[0])
    by = {name: {r["repetition"]: r for r in results if r["name"] == name} for name in names}
    tokens = statistics.mean(n for _, n in pairs)
    sides: dict[str, Any] = {}
    for name in names:
        runs = by[name]
        speeds = {k: rate(r, warm) for k, r in runs.items()}
        speed = median(list(speeds.values()))
        seconds = tokens / speed if speed else None
        figures: dict[str, Any] = {
            "tokens_per_second": speed,
            "step_seconds": seconds,
            "step_seconds_median": median([s for r in runs.values() for s in r.get("seconds", [])[warm:]]),
            "peak_gb": max((r["peak"] for r in runs.values() if "peak" in r), default=None),
            "reserved_gb": max((r["peak_reserved"] for r in runs.values() if "peak_reserved" in r), default=None),
            "prepare_seconds": median([r.get("prepare") for r in runs.values()]),
            "start_seconds": median([r.get("start") for r in runs.values()]),
            "of_limit": seconds / least if seconds and least else None,
            "path": next((r["path"] for r in runs.values() if "path" in r), None),
            "errors": [r["error"] for r in runs.values() if "error" in r],
            "out_of_memory": any(r.get("out_of_memory") for r in runs.values()),
            "groups": next((r["groups"] for r in runs.values() if "groups" in r), None),
        }
        device = next((r["device_name"] for r in runs.values() if "device_name" in r), "")
        if seconds and (most := peak_flops(device, getattr(torch, case["dtype"]))):
            figures["mfu"] = each / seconds / most
            figures["mfu_palm"] = statistics.mean(palm(config, lengths) for lengths, _ in pairs) / seconds / most
        if name != first:
            ours = by[first]
            ratios = [
                mine / theirs
                for k in runs
                if k in ours and (mine := rate(ours[k], warm)) and (theirs := speeds[k])
            ]  # fmt: skip
            figures["ours_faster_by"] = median(ratios)
            mine = max((r["peak"] for r in ours.values() if "peak" in r), default=None)
            figures["ours_memory"] = mine / figures["peak_gb"] if mine and figures["peak_gb"] else None
            apart = [agreement(ours[k], runs[k]) for k in runs if k in ours]
            figures["loss_apart"] = max((a for a in apart if a is not None), default=None)
            figures["counts"] = figures["loss_apart"] is not None and figures["loss_apart"] <= AGREE
        sides[name] = figures
    known = next((r for r in results if "versions" in r), {})
    versions = {name: next((r["versions"] for r in by[name].values() if "versions" in r), None) for name in names}
    summary = {
        "case": case, "supervised_per_step": tokens,
        "tokens_per_step": statistics.mean(sum(lengths) for lengths, _ in pairs),
        "limit_seconds": least, "rates": best, "flops_per_step": each, "sides": sides,
        "device_name": known.get("device_name"), "versions": versions,
    }  # fmt: skip
    return Summary(summary, text_of(summary))


def text_of(summary: dict[str, Any]) -> str:
    case = summary["case"]
    head = (
        f"\n{case['shape']}, {case['dtype']}, {case['kind']}, {case['batch']} x {case['length']}, "
        f"{summary['supervised_per_step']:.0f} supervised of {summary['tokens_per_step']:.0f} tokens a step; "
        f"{summary['device_name']}"
    )
    if summary["limit_seconds"]:
        rates = ", ".join(f"{name} {value / 1e9:.0f} GFLOP/s" for name, value in summary["rates"].items())
        head += f"\narithmetic limit {summary['limit_seconds']:.3f} s a step ({rates})"
    titles = ("tokens/s", "s/step", "x limit", "peak GB", "prepare s", "start s", "MFU", "ours x", "memory x", "apart")
    lines = [head, f"{'':28}" + "".join(f"{title:>10}" for title in titles)]
    keys = ("tokens_per_second", "step_seconds", "of_limit", "peak_gb", "prepare_seconds", "start_seconds", "mfu")
    forms = (".1f", ".3f", ".2f", ".2f", ".2f", ".2f", ".3f")
    for name, side in summary["sides"].items():
        line = f"{name[:28]:28}" + "".join(shown(side.get(k), f) for k, f in zip(keys, forms, strict=True))
        compared = ("ours_faster_by", ".2f"), ("ours_memory", ".2f"), ("loss_apart", ".1e")
        line += "".join(shown(side.get(key), form) for key, form in compared)
        line += "" if side.get("counts", True) else "  INVALID: LOSSES DIFFER"
        line += "  out of memory" if side["out_of_memory"] else ""
        lines += [line, f"{'':28}  {side['path']}"] if side["path"] else [line, *side["errors"]]
        if side["groups"]:
            lines += [f"    {g:28}{seconds:10.3f} s" for g, seconds in side["groups"].items()]
    return "\n".join(lines)
