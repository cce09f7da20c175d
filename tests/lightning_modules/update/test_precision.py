"""Advice on precision for CPUs; float16 with FSDP2 and a gradient scaler, in two processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lightning_modules.update.precision import advice_for_cpu, bfloat16_gain
from tests.conftest import ROOT


@pytest.mark.slow
def test_two_processes_find_a_scale_together_learn_and_resume_with_it(tmp_path: Path) -> None:
    script = Path(__file__).with_name("sharded_half.py")
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    facts = json.loads((tmp_path / "facts.json").read_text())
    assert (facts["trained"], facts["frozen"]) == (["torch.float32"], ["torch.float16"])
    # Each process holds its half, as estimated from shapes; FSDP has freed the tensors that it gathered
    assert facts["held"] == facts["estimated"] | {"gathered": 0.0}
    course, more = facts["course"], facts["more"]
    skipped = course[-1]["skipped"]
    assert skipped >= 1  # the first scale is too high on purpose, so steps are skipped
    assert course[-1]["scale"] == 2.0 ** (20 - skipped) == facts["saved_scale"] == more[-1]["scale"]
    assert more[-1]["skipped"] == skipped
    first, last = (sum(step["loss"] for step in steps) for steps in (course[:4], more[-4:]))
    assert last < 0.6 * first


@pytest.mark.parametrize(
    ("precision", "gain", "said"),
    [
        ("32-true", 2.2, "this CPU multiplies bfloat16 2.2 times as fast as float32: add --trainer"),
        ("bf16-mixed", 0.5, "this CPU multiplies float32 2.0 times as fast as bfloat16: add --trainer"),
        ("32-true", 1.1, None), ("32-true", 0.5, None), ("bf16-mixed", 2.2, None), ("bf16-mixed", 0.9, None),
    ],
)  # fmt: skip
def test_advice_is_given_if_the_other_precision_is_faster(precision: str, gain: float, said: str | None) -> None:
    advice = advice_for_cpu(precision, gain)
    assert advice is None if said is None else advice is not None and advice.startswith(said)


def test_the_gain_is_measured() -> None:
    assert 0 < bfloat16_gain() < 100
