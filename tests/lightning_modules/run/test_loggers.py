"""Loggers keep the lines of a resumed run."""

import csv
import errno
import os
import resource
import shutil
import signal
from pathlib import Path

import pytest

from errors import UserError
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


@pytest.mark.parametrize("text", ["", '"a,b",step\n1.0,1\n'], ids=["empty", "a name with a comma"])
def test_any_metrics_of_a_run_can_be_continued(text: str, tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text(text)
    logger = MetricsCsv(tmp_path)
    logger.log_metrics({"c": 2.0}, step=2)
    logger.log_metrics({"a,b": 3.0}, step=3)
    assert set(next(csv.reader(path.open()))) == {"a,b", "c", "step"}
    assert [row["a,b"] for row in csv.DictReader(path.open())] == [*(["1.0"] if text else []), "", "3.0"]


def test_a_line_that_a_kill_has_cut_is_not_joined_to_the_next(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text("a,step\n1.0,1\n2.0,1")  # of 2.0,12
    MetricsCsv(tmp_path).log_metrics({"a": 2.0}, step=2)
    assert list(csv.DictReader(path.open())) == [{"a": "1.0", "step": "1"}, {"a": "2.0", "step": "2"}]


def test_a_new_figure_never_leaves_the_file_without_its_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file with one more column takes the place of the old one at once."""
    path, before = tmp_path / "metrics.csv", []
    logger = MetricsCsv(tmp_path)
    logger.log_metrics({"a": 1.0}, step=1)
    replace = os.replace

    def note_replace(source: Path, target: Path) -> None:
        before.append((path.read_text(), Path(source).read_text()))
        replace(source, target)

    monkeypatch.setattr(os, "replace", note_replace)
    logger.log_metrics({"b": 2.0}, step=2)
    assert [[list(csv.DictReader(text.splitlines())) for text in texts] for texts in before] == [
        [[{"a": "1.0", "step": "1"}], [{"a": "1.0", "b": "", "step": "1"}]]
    ]
    assert [row["b"] for row in csv.DictReader(path.open())] == ["", "2.0"]


def test_metrics_in_a_folder_that_vanished_are_one_line(tmp_path: Path) -> None:
    logger = MetricsCsv(tmp_path / "run")
    logger.log_metrics({"a": 1.0}, step=1)
    shutil.rmtree(tmp_path / "run")
    with pytest.raises(UserError, match=r"run\.root: .*metrics\.csv' does not exist any more"):
        logger.log_metrics({"a": 2.0}, step=2)
    assert not (tmp_path / "run").exists()


def test_metrics_on_a_full_disk_are_one_line(tmp_path: Path) -> None:
    logger = MetricsCsv(tmp_path)
    logger.log_metrics({"a": 1.0}, step=1)
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))
    try:
        with pytest.raises(UserError, match=r"run\.root: .*metrics\.csv' cannot be written: the disk is full"):
            logger.log_metrics({"a": 2.0}, step=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


DAMAGED = {
    "zeros in the middle": "a,step\n1.0,1\n\0\0\0\0\n3.0,3\n",
    "a line with too many fields": "a,step\n1.0,1\n1,2,3\n",
    "a line with too few fields": "a,step\n1.0\n",
    "a step that is no number": "a,step\n1.0,x\n",
    "another header": "a,b\n1.0,2\n",
    "a byte that is not UTF-8": "a,step\n1.\udcff,1\n",
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_metrics_are_kept_under_another_name_and_a_new_file_begins(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "metrics.csv"
    path.write_bytes(DAMAGED[name].encode("utf-8", "surrogateescape"))
    logger = MetricsCsv(tmp_path)
    with caplog.at_level("WARNING"):
        logger.log_metrics({"b": 2.0}, step=4)
        logger.log_metrics({"c": 2.0}, step=5)
    assert [line["step"] for line in csv.DictReader(path.open())] == ["4", "5"]
    (kept,) = tmp_path.glob("metrics-damaged-*.csv")
    assert kept.read_bytes() == DAMAGED[name].encode("utf-8", "surrogateescape")
    assert caplog.text.count("is damaged; it is kept as") == 1


def test_events_on_a_full_disk_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logger = TensorBoard(tmp_path)

    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(logger.experiment, "add_scalar", full)
    with pytest.raises(UserError, match=r"run.root: .* cannot be written: the disk is full"):
        logger.log_metrics({"a": 1.0}, step=1)
