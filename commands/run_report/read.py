"""Everything that a run's folder tells, as plain data. Nothing is changed in it, also if the run is still training."""

import fcntl
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from commands.run_report.answers import Evaluation, Sample, read_evaluation, read_samples
from commands.run_report.curves import Curve, read_curves
from commands.yaml_files import load_yaml
from datamodules.prepare.stats import STEP_EDGES, TOKEN_EDGES
from errors import UserError
from lightning_modules.run.folder import Run

FILES = ("config.yaml", "metrics.csv", "summary.json")  # a folder with none of them is no run
OPTIONAL = {
    "evaluations": "no evaluation yet: python cli.py evaluate --task heldout --against base --run {folder}",
    "samples.md": "samples.md is missing: no row was answered (model.evaluation.rows)",
}


@dataclass
class RunRecord:
    """What a run's folder tells. A part that is missing or damaged is empty, and a line of `missing` says so."""

    folder: Path
    name: str  # of the run and its start
    state: str = ""
    curves: dict[str, Curve] = field(default_factory=dict)
    before: dict[str, float] = field(default_factory=dict)
    after: dict[str, float] = field(default_factory=dict)
    right_before: dict[str, bool] = field(default_factory=dict)
    right_after: dict[str, bool] = field(default_factory=dict)
    lengths: list[int] = field(default_factory=list)  # rows by TOKEN_EDGES
    steps: list[int] = field(default_factory=list)  # rows by STEP_EDGES
    response_tokens: float | None = None  # mean of the kept rows
    samples: list[Sample] = field(default_factory=list)
    evaluations: list[Evaluation] = field(default_factory=list)  # by time
    config: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    starts: list[dict[str, Any]] = field(default_factory=list)  # each environment*.json, by time
    missing: list[str] = field(default_factory=list)

    @property
    def last_step(self) -> int:
        """The last step with a figure, 0 if there is none."""
        return max((curve.steps[-1] for curve in self.curves.values()), default=0)

    def newest(self) -> Evaluation | None:
        """Return the newest evaluation of the trained model that has answers."""
        return next((one for one in reversed(self.evaluations) if one.answers and not one.of_base), None)


def read_run(folder: Path, setting: str = "RUN") -> RunRecord:
    """Read a run's folder. Raise UserError if it is none."""
    fix = "give a folder runs/NAME/TIME"
    try:
        if not folder.is_dir():
            raise UserError(setting, folder, "does not exist" if not folder.exists() else "is not a folder", fix)
        there = [name for name in FILES if (folder / name).is_file()]
    except OSError as error:
        raise UserError(setting, folder, f"cannot be read ({error.strerror})", fix) from error
    if not there:
        raise UserError(setting, folder, f"is not a run: it has none of {', '.join(FILES)}", fix)
    whole = folder.resolve()
    record = RunRecord(folder, f"{whole.parent.name}/{whole.name}")
    if (text := _text(record, "metrics.csv")) is not None:
        record.curves, faults = read_curves(text)
        record.missing += faults
    _read_summary(record)
    if (text := _text(record, "samples.md")) is not None:
        record.samples = read_samples(text)
        if text.strip() and not record.samples:
            record.missing.append("samples.md is damaged: no answer can be found in it")
    _read_evaluations(record)
    _read_config(record)
    _read_starts(record)
    record.state = _state(record)
    return record


def _text(record: RunRecord, name: str) -> str | None:
    """The text of a file of the run; None, and a line, if it cannot be read. Bytes that are no UTF-8 are replaced."""
    try:
        return (record.folder / name).read_bytes().decode("utf-8", "replace")
    except FileNotFoundError:
        record.missing.append(OPTIONAL.get(name, f"{name} is missing"))
    except OSError as error:
        record.missing.append(f"{name} cannot be read ({error.strerror})")
    return None


def _json(record: RunRecord, name: str) -> dict[str, Any]:
    if (text := _text(record, name)) is None:
        return {}
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        record.missing.append(f"{name} is damaged")
        return {}
    return found


def _read_summary(record: RunRecord) -> None:
    """Take the figures of summary.json that have the right kind."""
    found = _json(record, "summary.json")
    record.before, record.after = (_numbers(found.get(name)) for name in ("before", "after"))
    record.right_before, record.right_after = (_verdicts(found.get(f"right_{name}")) for name in ("before", "after"))
    data = found.get("data")
    data = data if isinstance(data, dict) else {}
    record.lengths, record.steps = (
        _counts(data.get(name), len(edges) + 1) for name, edges in (("lengths", TOKEN_EDGES), ("steps", STEP_EDGES))
    )
    rows = sum(_numbers(data.get("kept")).values())
    tokens = sum(count for role, count in _numbers(data.get("role_tokens")).items() if role != "prompt")
    record.response_tokens = tokens / rows if rows > 0 and tokens > 0 else None
    parts = {"before": record.before, "data": record.lengths}
    lacking = [name for name, part in parts.items() if found and not part]
    record.missing += [f"summary.json has no figures of {' and '.join(lacking)}"] if lacking else []


def _read_evaluations(record: RunRecord) -> None:
    try:
        files = sorted((record.folder / "evaluations").glob("*.jsonl"), key=lambda path: (path.stat().st_mtime, path))
    except OSError as error:
        files = []
        record.missing.append(f"evaluations cannot be read ({error.strerror})")
    for path in files:
        try:
            found, fault = read_evaluation(path)
        except OSError as error:
            found, fault = None, f"evaluations/{path.name} cannot be read ({error.strerror})"
        record.missing += [fault] if fault else []
        record.evaluations += [found] if found else []
    if not files:
        record.missing.append(OPTIONAL["evaluations"].format(folder=record.folder))


def _read_config(record: RunRecord) -> None:
    """Take the newest config: a resumed run has several."""
    try:
        name = Run(record.folder).config().name
    except (UserError, OSError):
        record.missing.append("config.yaml is missing")
        return
    record.config = _text(record, name) or ""
    try:
        found = load_yaml(record.config)
    except ValueError:
        found = None
    if isinstance(found, dict):
        record.settings = found
    else:
        record.missing.append(f"{name} is damaged: it is shown as it is")


def _read_starts(record: RunRecord) -> None:
    try:
        files = sorted(record.folder.glob("environment*.json"), key=lambda path: (path.stat().st_mtime, path))
    except OSError:
        files = []
    record.missing += [] if files else ["environment.json is missing"]
    record.starts = [found for path in files if (found := _json(record, path.name))]


def _state(record: RunRecord) -> str:
    """Whether the run is still training, in words."""
    if _is_locked(record.folder / "run.lock"):
        return f"is still training, at step {record.last_step:,}"
    if record.after:
        return f"ended, after step {record.last_step:,}"
    return f"was stopped or killed before its last measurement, after step {record.last_step:,}"


def _is_locked(path: Path) -> bool:
    """Whether a process holds the lock of the run. On a disk without locks, no."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and abs(value) < 1e30 and math.isfinite(value)


def _numbers(value: Any) -> dict[str, float]:
    found = value if isinstance(value, dict) else {}
    return {str(name): float(one) for name, one in found.items() if _is_number(one)}


def _verdicts(value: Any) -> dict[str, bool]:
    found = value if isinstance(value, dict) else {}
    return {str(name): one for name, one in found.items() if isinstance(one, bool)}


def _counts(value: Any, number: int) -> list[int]:
    whole = isinstance(value, list) and len(value) == number
    return [int(one) for one in value] if whole and all(_is_number(one) and one >= 0 for one in value) else []
