import csv
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from errors import UserError
from lightning_modules.evaluation.think_scores import AnsweredRow
from lightning_modules.generation.think_response import ThinkResponse
from lightning_modules.run.callbacks import MetricsCsv, ResumeHint, RunStart, SampleTable
from lightning_modules.run.folder import Run


def test_a_machine_that_does_not_see_the_runs_folder_says_so_before_training(tmp_path: Path) -> None:
    """It would measure other weights than the first, which alone finds the best checkpoint."""
    run, there = Run(tmp_path / "runs"), tmp_path / "there"
    first: Any = SimpleNamespace(strategy=SimpleNamespace(broadcast=lambda _: (str(there), True)))
    with pytest.raises(UserError, match=r"run\.root: .*there' is not seen by all machines"):
        RunStart(run).setup(first, first, "fit")
    there.mkdir()
    RunStart(run).setup(first, first, "fit")
    assert run.folder == there


def test_metrics_of_a_continued_run_are_added_to_what_was_there(tmp_path: Path) -> None:
    first = MetricsCsv(tmp_path)
    first.log_metrics({"a": 1.0}, step=1)
    second = MetricsCsv(tmp_path)
    second.log_metrics({"a": 2.0, "b": 3.0}, step=2)
    rows = list(csv.DictReader((tmp_path / "metrics.csv").open()))
    assert rows == [{"a": "1.0", "b": "", "step": "1"}, {"a": "2.0", "b": "3.0", "step": "2"}]
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.csv"]


def test_metrics_survive_a_kill_between_two_steps_of_their_own_keeping(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv.kept").write_text("a,step\n1.0,1\n")  # as a kill in the middle of a start would leave it
    MetricsCsv(tmp_path).log_metrics({"a": 2.0}, step=2)
    assert [row["a"] for row in csv.DictReader((tmp_path / "metrics.csv").open())] == ["1.0", "2.0"]


def test_samples_are_added_and_nothing_in_them_ends_their_block(tmp_path: Path) -> None:
    written = ThinkResponse("<think>a</think>\n```\n# b", ("a",), "b", True, True)
    rows = [AnsweredRow(i, "g", "Ask\n", written, written) for i in range(5)]
    table = SampleTable(Run(tmp_path))
    for step in (0, 7):
        table.on_validation_end(SimpleNamespace(global_step=step), SimpleNamespace(answered=rows))  # type: ignore[arg-type]
    text = (tmp_path / "samples.md").read_text()
    assert text.count("## Step 7") == 1
    assert text.count("### Row") == 6
    assert "    ```\n    # b" in text
    assert not [line for line in text.splitlines() if line.startswith(("# b", "```"))]


def test_who_is_stopped_is_told_the_way_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run, trainer = Run(tmp_path), SimpleNamespace(global_step=7)
    with caplog.at_level("INFO", logger="thinkwright"):
        ResumeHint(run).on_exception(trainer, trainer, KeyboardInterrupt())  # type: ignore[arg-type]
        run.checkpoints.mkdir()
        run.last.touch()
        ResumeHint(run).on_exception(trainer, trainer, KeyboardInterrupt())  # type: ignore[arg-type]
        ResumeHint(run).on_exception(trainer, trainer, UserError("a", "b", "c", "d"))  # type: ignore[arg-type]
    assert "before the first checkpoint" in caplog.messages[0]
    assert f"--ckpt_path {run.last} goes on" in caplog.messages[1]
    assert len(caplog.messages) == 2
