"""What callbacks write to the run folder."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from errors import UserError
from lightning_modules.evaluation.answers import EvalSettings
from lightning_modules.evaluation.think_scores import AnsweredRow
from lightning_modules.generation.think_response import ThinkResponse
from lightning_modules.run.callbacks import ResumeHint, RunStart, SampleTable
from lightning_modules.run.folder import Run


def test_a_machine_without_the_run_folder_is_refused_before_training(tmp_path: Path) -> None:
    """It could not load the best checkpoint, and would measure other weights than the first machine."""
    run, there = Run(tmp_path / "runs"), tmp_path / "there"
    first: Any = SimpleNamespace(strategy=SimpleNamespace(broadcast=lambda _: (str(there), True)))
    with pytest.raises(UserError, match=r"run\.root: .*there' does not exist on every machine"):
        RunStart(run).setup(first, first, "fit")
    there.mkdir()
    RunStart(run).setup(first, first, "fit")
    assert run.folder == there


def test_samples_are_appended_and_no_text_ends_its_block(tmp_path: Path) -> None:
    written = ThinkResponse("<think>a</think>\n```\n# b", ("a",), "b", True, True)
    rows = [AnsweredRow(i, "g", "Ask\n", written, written) for i in range(7)]
    table = SampleTable(Run(tmp_path))
    for step in (0, 7):
        trainer: Any = SimpleNamespace(global_step=step, sanity_checking=False)
        tuner: Any = SimpleNamespace(answered=rows, evaluation=EvalSettings(samples=2))
        table.on_validation_end(trainer, tuner)
    text = (tmp_path / "samples.md").read_text()
    assert text.count("## Step 7") == 1
    assert text.count("#### Row") == 2 * (2 + 2)  # the first ones, and two more right ones
    assert "    ```\n    # b" in text
    assert not [line for line in text.splitlines() if line.startswith(("# b", "```"))]


def test_a_stopped_fit_prints_how_to_resume(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run, trainer = Run(tmp_path), SimpleNamespace(global_step=7)
    with caplog.at_level("INFO", logger="thinkwright"):
        ResumeHint(run).on_exception(trainer, trainer, KeyboardInterrupt())  # type: ignore[arg-type]
        run.checkpoints.mkdir()
        run.last.touch()
        ResumeHint(run).on_exception(trainer, trainer, KeyboardInterrupt())  # type: ignore[arg-type]
        ResumeHint(run).on_exception(trainer, trainer, UserError("a", "b", "c", "d"))  # type: ignore[arg-type]
    assert "before the first checkpoint" in caplog.messages[0]
    assert f"to resume, add --ckpt_path {run.last}" in caplog.messages[1]
    assert len(caplog.messages) == 2
