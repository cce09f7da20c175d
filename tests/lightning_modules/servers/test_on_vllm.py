"""The parser's tests again, in a process that has vLLM in reach: on vLLM's base class and in vLLM's serving code.

The process is apart because another test needs an environment without vLLM, and because vLLM changes torch as it is
imported.
"""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.conftest import ROOT

HERE = Path(__file__).parent
FOLDER = os.environ.get("THINKWRIGHT_VLLM")


@pytest.mark.skipif(FOLDER is None, reason="THINKWRIGHT_VLLM is not set: tests/vllm.txt says how")
@pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is installed, so these tests run by themselves")
def test_the_parser_is_right_on_vllms_own_code() -> None:
    files = [str(HERE / name) for name in ("test_think_blocks_parser.py", "test_vllm_serving.py")]
    command = [sys.executable, "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", "-k", "vllm", *files]
    environment = os.environ | {"PYTHONPATH": f"{FOLDER}{os.pathsep}{ROOT}"}
    ran = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    passed = re.search(r"^(\d+) passed", ran.stdout, re.MULTILINE)
    assert passed is not None, ran.stdout
    assert "skipped" not in ran.stdout
    assert int(passed[1]) >= 10
