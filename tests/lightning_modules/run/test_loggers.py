"""Loggers keep the lines of a resumed run."""

import csv
from pathlib import Path

from lightning_modules.run.loggers import MetricsCsv, TensorBoard


def test_a_resumed_run_appends_to_its_metrics(tmp_path: Path) -> None:
    first = MetricsCsv(tmp_path)
    first.log_metrics({"a": 1.0}, step=1)
    second = MetricsCsv(tmp_path)
    second.log_metrics({"a": 2.0, "b": 3.0}, step=2)
    rows = list(csv.DictReader((tmp_path / "metrics.csv").open()))
    assert rows == [{"a": "1.0", "b": "", "step": "1"}, {"a": "2.0", "b": "3.0", "step": "2"}]
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.csv"]


def test_metrics_survive_a_kill_at_the_start_of_a_resume(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv.kept").write_text("a,step\n1.0,1\n")  # the file after such a kill
    MetricsCsv(tmp_path).log_metrics({"a": 2.0}, step=2)
    assert [row["a"] for row in csv.DictReader((tmp_path / "metrics.csv").open())] == ["1.0", "2.0"]


def test_tensorboard_writes_events_and_no_copy_of_the_settings(tmp_path: Path) -> None:
    logger = TensorBoard(tmp_path)
    logger.log_metrics({"a": 1.0}, step=1)
    logger.save()
    assert [path.name.split(".")[0] for path in tmp_path.iterdir()] == ["events"]
