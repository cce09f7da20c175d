"""Which questions were gained and lost: by training, and between two runs. Which settings of two runs differ."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from commands.run_report.answers import Answer, Evaluation
from commands.run_report.read import RunRecord
from lightning_modules.evaluation.comparison import compare

MARKS = ("A", "B")  # of the runs on the page
SHOWN = 10  # questions with their texts, of those gained and of those lost


class Change(NamedTuple):
    """A question that one model answers right and the other one does not. Texts that no file has are empty."""

    question: str
    reference: str
    first: str
    second: str


class Outcome(NamedTuple):
    """Two models on the same questions. A question is gained if the second one only answers it right."""

    title: str
    first: str
    second: str
    lines: list[str]
    gained: list[Change]
    lost: list[Change]
    further: int  # changed questions beyond SHOWN


def outcomes(runs: Sequence[RunRecord]) -> list[Outcome]:
    """Return the comparisons that the files of one or two runs allow."""
    found: list[Outcome | None] = []
    for mark, run in zip(MARKS, runs, strict=False):
        of = f" ({mark})" if len(runs) > 1 else ""
        title = f"Validation rows, before and after training{of}"
        found.append(_of_rows(title, ("before", "after"), run.right_before, run.right_after))
        for one in run.evaluations:
            rival = next((base for base in reversed(run.evaluations) if base.of_base and base.asks_as(one)), None)
            if rival is not None and not one.of_base:
                found.append(_of_evaluations(f"{one.name}, beside the base{of}", ("base", "run"), rival, one))
    if len(runs) > 1:
        first, second = runs
        found.append(_of_rows("Validation rows after training", MARKS, first.right_after, second.right_after))
        pairs = ((a, b) for b in reversed(second.evaluations) for a in reversed(first.evaluations) if a.asks_as(b))
        pair = next(((a, b) for a, b in pairs if not a.of_base and not b.of_base), None)
        if pair is not None:
            found.append(_of_evaluations(f"{pair[0].name} and {pair[1].name}", MARKS, *pair))
    return [one for one in found if one is not None]


def differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return (key, value, value) of each setting in which two configs differ; "–" for one that a config lacks."""
    one, other = _leaves(first), _leaves(second)
    keys = [key for key in {**one, **other} if one.get(key, _LACKS) != other.get(key, _LACKS)]
    return [(key, str(one.get(key, _LACKS)), str(other.get(key, _LACKS))) for key in keys]


_LACKS = "–"


def _of_rows(
    title: str, names: tuple[str, str], first: Mapping[str, bool], second: Mapping[str, bool]
) -> Outcome | None:
    found = compare(*({key: [right] for key, right in one.items()} for one in (first, second)))
    return Outcome(title, *names, found.lines(), [], [], 0) if found is not None else None


def _of_evaluations(title: str, names: tuple[str, str], first: Evaluation, second: Evaluation) -> Outcome | None:
    found = compare(first.verdicts(), second.verdicts())
    if found is None:
        return None
    texts = [_first_answers(one.answers) for one in (first, second)]
    gained, lost = ([_change(name, *texts) for name in some[:SHOWN]] for some in (found.gained, found.lost))
    further = len(found.gained) + len(found.lost) - len(gained) - len(lost)
    return Outcome(title, *names, found.lines(), gained, lost, further)


def _first_answers(answers: Sequence[Answer]) -> dict[str, Answer]:
    return {one.question: one for one in sorted(answers, key=lambda one: -one.sample)}


def _change(name: str, first: Mapping[str, Answer], second: Mapping[str, Answer]) -> Change:
    return Change(name, second[name].reference, first[name].text, second[name].text)


def _leaves(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in settings.items():
        key = f"{prefix}{name}"
        found |= _leaves(value, f"{key}.") if isinstance(value, Mapping) and value else {key: value}
    return found
