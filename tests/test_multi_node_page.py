"""The YAML blocks of docs/multi_node.md: their scripts start what torchrun and `fit` accept, and resume.

A stand-in for torchrun prints its arguments. Whether the clusters accept the blocks was checked by hand: the page says
how.
"""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from torch.distributed.run import get_args_parser

from commands.fit_settings import fit_parser
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "multi_node.md").read_text(encoding="utf-8")
FOUND = re.findall(r"```yaml (\S+)\n(.*?)```", PAGE, re.DOTALL)
BLOCKS: dict[str, Any] = {name: yaml.safe_load(text) for name, text in FOUND}
TASK, JOBSET = BLOCKS["thinkwright.yaml"], BLOCKS["jobset.yaml"]
JOB = JOBSET["spec"]["replicatedJobs"][0]["template"]["spec"]
POD = JOB["template"]["spec"]
CONTAINER = POD["containers"][0]
GPUS = int(TASK["resources"]["accelerators"].partition(":")[2])
# The variables that SkyPilot and an indexed job give to the second machine
SECOND = {
    "thinkwright.yaml": {
        "SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2", "SKYPILOT_NUM_NODES": str(TASK["num_nodes"]),
        "SKYPILOT_NODE_RANK": "1", "SKYPILOT_NUM_GPUS_PER_NODE": str(GPUS),
    },
    "jobset.yaml": {one["name"]: one["value"] for one in CONTAINER["env"]} | {"JOB_COMPLETION_INDEX": "1"},
}  # fmt: skip
SCRIPTS = {"thinkwright.yaml": TASK["run"], "jobset.yaml": CONTAINER["args"][0]}
SET, MACHINE = JOBSET["metadata"]["name"], JOBSET["spec"]["replicatedJobs"][0]["name"]
FIRST = {"thinkwright.yaml": "10.0.0.1", "jobset.yaml": f"{SET}-{MACHINE}-0-0.{SET}"}


def started(name: str, folder: Path) -> list[str]:
    """The arguments that torchrun gets from a block's script, with `folder`/runs in place of /runs."""
    program = folder / ".venv" / "bin" / "torchrun"
    program.parent.mkdir(parents=True, exist_ok=True)
    program.write_text(f"#!{sys.executable}\nimport json, sys\nprint(json.dumps(sys.argv[1:]))\n")
    program.chmod(0o755)
    script = SCRIPTS[name].replace("/runs", shlex.quote(f"{folder}/runs"))
    done = subprocess.run(
        ["bash", "-ec", script], cwd=folder, env=os.environ | SECOND[name], capture_output=True, text=True, check=True
    )
    found: list[str] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("name", BLOCKS)
def test_a_script_starts_what_torchrun_and_fit_accept(name: str, tmp_path: Path) -> None:
    launched = get_args_parser().parse_args(started(name, tmp_path))
    machines, gpus = (2, 4)
    assert (launched.nnodes, launched.nproc_per_node, launched.node_rank) == (str(machines), str(gpus), 1)
    assert (launched.training_script, launched.master_addr, launched.master_port) == ("cli.py", FIRST[name], 29500)
    command, *args = launched.training_script_args
    given = fit_parser("fit").read([*args, "--config", str(ROOT / "configs/multi_think.yaml")][2:])
    assert command == "fit" and args[:2] == ["--config", "configs/multi_think.yaml"]
    assert "--ckpt_path" not in args
    told = dict(zip(args[::2], args[1::2], strict=True))
    assert told["--trainer.num_nodes"] == str(machines) and told["--trainer.devices"] == str(gpus)
    assert given.run.name in SCRIPTS[name] and told["--run.root"] == f"{tmp_path}/runs"


@pytest.mark.parametrize("name", BLOCKS)
def test_a_later_start_resumes_the_newest_run(name: str, tmp_path: Path) -> None:
    last = tmp_path / "runs" / "multi_think" / "2026-01-01_00-00-00" / "checkpoints" / "last.ckpt"
    last.parent.mkdir(parents=True)
    last.write_bytes(b"")
    assert started(name, tmp_path)[-2:] == ["--ckpt_path", "last"]


def test_the_numbers_of_machines_and_gpus_agree_within_a_block() -> None:
    environment = SECOND["jobset.yaml"]
    assert JOB["parallelism"] == JOB["completions"] == int(environment["NODES"]) == TASK["num_nodes"]
    assert CONTAINER["resources"]["limits"]["nvidia.com/gpu"] == int(environment["GPUS"]) == GPUS
    assert environment["FIRST"] == FIRST["jobset.yaml"] and JOB["completionMode"] == "Indexed"
    assert {one["name"] for one in CONTAINER["volumeMounts"]} == {one["name"] for one in POD["volumes"]}
