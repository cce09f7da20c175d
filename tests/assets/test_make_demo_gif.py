"""The picture of the front page shows the texts and figures of its run."""

import json
from pathlib import Path

import pytest
from PIL import Image

from assets.make_demo_gif import Screen, draw, frames, pieces, read_run, save

SAMPLES = """## Step 0

1 questions: 0 right, 1 wrong.

### The first rows, the same at each validation

#### Row 0 (wrong, malformed)

Given:

    ### Instruction: What is 4 + 1?
    ### Response:

Written:

    6

Reference:

    <think>4 + 1 = 5.</think>

    5

Why:

    wrong: “6” beside “5”, by the rung: number

### Wrong: 1 of 1 (above: row 0)

## Step 50

1 questions: 1 right, 0 wrong.

### The first rows, the same at each validation

#### Row 0 (right)

Given:

    ### Instruction: What is 4 + 1?
    ### Response:

Written:

    <think>Add.</think><think>4 + 1 = 5.</think>

    5

Reference:

    <think>4 + 1 = 5.</think>

    5
"""
FIGURES = {"loss": 4.0, "think_format": 0.0, "answer_match": 0.335}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "samples.md").write_text(SAMPLES)
    after = {"loss": 0.03, "think_format": 1.0, "answer_match": 0.99}
    (tmp_path / "summary.json").write_text(json.dumps({"before": FIGURES, "after": after}))
    (tmp_path / "metrics.csv").write_text("step,train/loss,val/loss\n0,,4.0\n25,1.0,\n50,0.5,\n50,,0.03\n")
    return tmp_path


def test_a_run_is_read_with_its_first_and_last_answer(folder: Path) -> None:
    run = read_run(folder)
    assert (run.question, run.before, run.answer, run.reference) == ("What is 4 + 1?", "6", "5", "5")
    assert run.thoughts == ["<think>Add.</think>", "<think>4 + 1 = 5.</think>"]
    assert run.losses == [(0, 4.0), (25, 1.0), (50, 0.5)]
    assert run.figures[2] == ("right answers", "33.5 %", "99.0 %")


def test_the_tokens_of_a_line_join_to_its_text(folder: Path) -> None:
    run = read_run(folder)
    assert ["".join(line) for line in pieces(run)] == [*run.thoughts, run.answer]


def test_each_token_changes_the_picture(folder: Path) -> None:
    run = read_run(folder)
    lines = pieces(run)
    shown = [draw(run, lines, Screen(tokens=count)).tobytes() for count in range(sum(map(len, lines)) + 1)]
    assert len(set(shown)) == len(shown)


def test_the_gif_takes_the_time_of_its_frames(folder: Path, tmp_path: Path) -> None:
    run = read_run(folder)
    save(run, tmp_path / "demo.gif")
    image, times = Image.open(tmp_path / "demo.gif"), []
    for frame in range(getattr(image, "n_frames")):  # noqa: B009
        image.seek(frame)
        times.append(image.info["duration"])
    assert sum(times) == sum(milliseconds for _, milliseconds in frames(run, pieces(run)))


def test_a_run_that_did_not_finish_is_refused(folder: Path) -> None:
    (folder / "summary.json").write_text(json.dumps({"before": FIGURES}))
    with pytest.raises(SystemExit, match="not a finished run"):
        read_run(folder)
