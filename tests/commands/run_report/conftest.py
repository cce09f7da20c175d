"""The folder of a run as fit, evaluate and the loggers leave it, with few figures."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from datamodules.prepare.stats import STEP_EDGES, TOKEN_EDGES

HOSTILE = "</svg></title><script>alert(1)</script> $x^2$ & \x1b[31m \u202e <b onclick='x()'>"
METRICS = """lr,step,train/loss,train/loss_thought,val/answer_match,val/answered,val/loss,val/think_format
,0,,,0.25,40.0,4.5,0.0
0.001,10,2.0,1.5,,,,
0.0005,20,0.02,0.01,0.9,40.0,0.03,1.0
"""
SAMPLES = """## Step 0

1 questions: 0 right, 1 wrong, 0 cut off, 0 caught in a loop, 0 malformed, 0 contradicted.

### The first rows, the same at each validation

#### Row 0 (wrong)

Given:

    What is 1 + 1?

Written:

    3

Reference:

    2

## Step 20

### Right: 1 of 1

#### Row 0 (right)

Given:

    What is 1 + 1?

Written:

    <think>One more.</think>
    
    2

Reference:

    2

"""  # noqa: W293  (an empty line of a text is four blanks)


def evaluation(path: Path, checkpoint: str, right: dict[str, bool], text: str, **more: Any) -> None:
    """Write the file of an evaluation with one answer to each question."""
    header = {"evaluation": 1, "task": "t", "questions": "q", "checkpoint": checkpoint, "decoding": {}, "samples": 1}
    path.parent.mkdir(exist_ok=True)
    lines = [header | more]
    for name, verdict in right.items():
        one = {"id": name, "sample": 0, "right": verdict, "reference": "2", "text": text}
        lines.append(one | {"tokens": 70, "thoughts": 2, "well_formed": True})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """Make a run's folder of a name, with files by their names in place of the usual ones; None leaves a file out."""

    def make(name: str = "run", **files: str | None) -> Path:
        folder = tmp_path / "demo" / name
        folder.mkdir(parents=True)
        lengths, steps = [0] * (len(TOKEN_EDGES) + 1), [0] * (len(STEP_EDGES) + 1)
        lengths[1], steps[2] = 30, 30
        data = {"lengths": lengths, "steps": steps, "kept": {"train": 30}}
        summary = {
            "before": {"loss": 4.5, "answer_match": 0.25, "answered": 40.0},
            "after": {"loss": 0.03, "answer_match": 0.9, "answered": 40.0},
            "right_before": {"0-a": False, "1-b": True, "2-c": False},
            "right_after": {"0-a": True, "1-b": True, "2-c": False},
            "data": data | {"role_tokens": {"prompt": 600, "thought": 1500, "answer": 300}},
        }
        command = ["python", "cli.py", "fit", "--run.name", "a b"]
        usual: dict[str, str | None] = {
            "metrics_csv": METRICS,
            "summary_json": json.dumps(summary),
            "samples_md": SAMPLES,
            "config_yaml": "model: {lora: {rank: 8}}\ndata: {source: builtin}\n",
            "environment_json": json.dumps({"command": command, "version": "0.1.0", "versions": {"torch": "2.13.0"}}),
        }
        for file, text in (usual | files).items():
            if text is not None:
                (folder / ".".join(file.rsplit("_", 1))).write_bytes(text.encode("utf-8", "surrogateescape"))
        evaluation(folder / "evaluations/t-base-1.jsonl", "none: the base", {"x": False, "y": True, "z": False}, "3")
        evaluation(folder / "evaluations/t-2.jsonl", "abc", {"x": True, "y": False, "z": True}, "<think>a</think>2")
        return folder

    return make
