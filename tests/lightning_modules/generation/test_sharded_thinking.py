"""Two processes that share a model by FSDP2 control thinking as one process does."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.lightning_modules.generation.sharded_thinking import PROMPTS, answers


@pytest.mark.slow
def test_sharded_ranks_write_what_one_process_writes(tmp_path: Path) -> None:
    """The ranks have different numbers of rows, which end at different tokens."""
    script = Path(__file__).with_name("sharded_thinking.py")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    known = os.environ | {"PYTHONPATH": str(ROOT), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    ranks = [
        subprocess.Popen([sys.executable, str(script), str(tmp_path)], env=known | {"RANK": str(rank)},
                         stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]  # fmt: skip
    try:
        said = [rank.communicate(timeout=240)[1] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert [rank.returncode for rank in ranks] == [0, 0], said
    written = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    assert written == [answers(prompts, sharded=False) for prompts in PROMPTS]
    assert all("⟦" in raw for raw in written[0])  # something was forced
