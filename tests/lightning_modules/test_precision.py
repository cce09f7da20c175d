"""float16 with FSDP2 and a gradient scaler, which Lightning does not offer: two processes on a CPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT


def test_two_processes_find_a_scale_together_learn_and_go_on_with_it(tmp_path: Path) -> None:
    script = Path(__file__).with_name("sharded_half.py")
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    facts = json.loads((tmp_path / "facts.json").read_text())
    assert (facts["trained"], facts["frozen"]) == (["torch.float32"], ["torch.float16"])
    # Each of the two holds its half, as estimated from shapes; what FSDP gathers for a moment is gone by now
    assert facts["held"] == facts["estimated"] | {"gathered": 0.0}
    course, more = facts["course"], facts["more"]
    skipped = course[-1]["skipped"]
    assert skipped >= 1  # the scale was too high on purpose: steps are left out until it is not
    assert course[-1]["scale"] == 2.0 ** (20 - skipped) == facts["saved_scale"] == more[-1]["scale"]
    assert more[-1]["skipped"] == skipped
    first, last = (sum(step["loss"] for step in steps) for steps in (course[:4], more[-4:]))
    assert last < 0.6 * first
