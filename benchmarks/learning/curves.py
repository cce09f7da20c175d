"""Statistics over seeds: mean, spread, and the difference to another recipe, seed by seed."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Curve = Mapping[int, Mapping[str, float]]  # optimizer step -> figures

FIGURES = {
    "loss": "loss", "loss_thought": "thought", "loss_tag_open": "opening tag", "loss_tag_close": "closing tag",
    "loss_answer": "answer", "loss_end": "end", "think_format": "well-formed", "answer_match": "answer match",
}  # fmt: skip
RATIOS = ("think_format", "answer_match")  # higher is better; for all other figures lower is better

Verdict = Literal["better", "worse", "equal", "unclear"]


@dataclass(frozen=True)
class Value:
    """A figure over seeds. `spread`: the sample standard deviation, None for a single seed."""

    mean: float
    spread: float | None


def over_seeds(curves: Sequence[Curve]) -> dict[int, dict[str, Value]]:
    """Return step -> figure -> value, for the steps and figures that all curves have."""
    steps = sorted(set.intersection(*(set(curve) for curve in curves)))
    return {
        step: {
            name: value([curve[step][name] for curve in curves])
            for name in FIGURES
            if all(name in curve[step] for curve in curves)
        }
        for step in steps
    }


def value(values: Sequence[float]) -> Value:
    return Value(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None)


def differences(curves: Mapping[int, Curve], base: Mapping[int, Curve], step: int, name: str) -> list[float]:
    """Return the difference of a figure to the base recipe's, for each seed (the keys) that both have.

    The seed decides the validation rows, so differences have a much smaller spread than the figures.
    """
    return [curves[seed][step][name] - base[seed][step][name] for seed in sorted(set(curves) & set(base))]


def verdict(found: Sequence[float], name: str) -> Verdict:
    """Return better or worse only if that is so for every seed."""
    signed = [-difference if name not in RATIOS else difference for difference in found]
    if all(one == 0 for one in signed):
        return "equal"
    if all(one > 0 for one in signed):
        return "better"
    return "worse" if all(one < 0 for one in signed) else "unclear"


def plainly(curves: Mapping[int, Curve], base: Mapping[int, Curve], step: int, names: tuple[str, str]) -> list[str]:
    """Return one line for each verdict: is the first of `names` better than the second at this step?"""
    by_verdict: dict[Verdict, list[str]] = {}
    for name, title in FIGURES.items():
        if all(name in one[seed][step] for one in (curves, base) for seed in one):
            found = differences(curves, base, step, name)
            by_verdict.setdefault(verdict(found, name), []).append(f"{title} ({shown(value(found), name, sign=True)})")
    says: dict[Verdict, str] = {
        "better": f"{names[0]} is better than {names[1]} with every seed in",
        "worse": f"{names[0]} is WORSE than {names[1]} with every seed in",
        "equal": f"{names[0]} is NOT better than {names[1]} but equal with every seed in",
        "unclear": f"{names[0]} is NOT better than {names[1]} with every seed in",
    }
    return [f"{text}: {', '.join(by_verdict[which])}." for which, text in says.items() if which in by_verdict]


def shown(figure: Value, name: str, sign: bool = False) -> str:
    """Return text like `6.51 ± 0.02`; ratios in percent, differences with their sign."""
    factor, digits = (100, 1) if name in RATIOS else (1, 3)
    text = f"{factor * figure.mean:{'+' if sign else ''}.{digits}f}"
    if figure.spread is not None:
        text += f" ± {factor * figure.spread:.{digits}f}"
    return text + (" %" if name in RATIOS else "")
