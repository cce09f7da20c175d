"""Two machines, played by this one: under torchrun, and under SLURM with a stand-in for srun."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lightning_modules.checkpoints.checkpoint_file import read_checkpoint
from tests.cli.conftest import DEMO, SHORT
from tests.conftest import ROOT

SBATCH = ROOT / "examples" / "slurm" / "fit.sbatch"
JOB = "4217"
# What SLURM 22.05 set in a batch script, of those variables that the script, Lightning and we read
BATCH = {
    "SLURM_JOB_ID": JOB, "SLURM_JOB_NAME": "thinkwright", "SLURM_JOB_NODELIST": "n[1-2]", "SLURM_NODELIST": "n[1-2]",
    "SLURM_NNODES": "2", "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "1", "SLURM_PROCID": "0", "SLURM_NODEID": "0",
    "SLURM_LOCALID": "0", "SLURM_CPUS_PER_TASK": "1",
}  # fmt: skip
Submit = Callable[..., tuple[int, str]]


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def executable(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(("#!/bin/sh", *lines, "")))
    path.chmod(0o755)
    return path


@pytest.fixture
def submit(tmp_path: Path) -> Submit:
    """Runs the script as sbatch does, in the checkout, and gives its exit code and output. Keywords are variables; runs
    are kept in runs. `limit_at` is a pattern: once such a file exists the time limit is near."""
    stand_ins, pid = tmp_path / "bin", tmp_path / "srun.pid"
    stand_ins.mkdir()
    srun = f"{sys.executable} {ROOT / 'tests' / 'cli' / 'stand_in_srun.py'}"
    executable(stand_ins / "srun", f"echo $$ > {pid}", f'exec {srun} "$@"')
    executable(stand_ins / "scancel", f'test "$*" = "--signal=TERM {JOB}" && kill -TERM $(cat {pid})')
    executable(
        stand_ins / "scontrol",
        'case "$1 $2" in',
        '"show hostnames") echo localhost; echo elsewhere ;;',
        f'requeue*) echo "$2" >> {tmp_path / "requeued"} ;;',
        "esac",
    )
    fixed = {
        "PATH": f"{stand_ins}:{os.environ['PATH']}",
        "RUN_ROOT": str(tmp_path / "runs"),
        "MASTER_PORT": free_port(),
    }

    def run(*args: str, limit_at: str | None = None, **variables: str) -> tuple[int, str]:
        with (tmp_path / "said").open("a+") as said:
            environment = os.environ | BATCH | fixed | variables
            job = subprocess.Popen(["bash", SBATCH, *args], cwd=ROOT, env=environment, stdout=said, stderr=said)
            until = time.monotonic() + 170  # the stand-in ends before
            while job.poll() is None and time.monotonic() < until:
                if limit_at and list(tmp_path.glob(limit_at)):
                    job.send_signal(signal.SIGUSR1)
                    limit_at = None
                time.sleep(0.05)
            job.kill()
            said.seek(0)
            return job.wait(), said.read()

    return run


# In place of Python: says how it was called and ends, with CODE_<rank> if that is given, else at SIGTERM with 143
PROGRAM = """
import os, signal, sys, time
from pathlib import Path
rank, here, save = os.environ["SLURM_PROCID"], Path(__file__).parent, os.environ.get("SAVE")
def stop(*_):
    if save:
        (Path(save) / "last.ckpt").write_text("saved")
    sys.exit(143)
signal.signal(signal.SIGTERM, stop)
print(f"{rank} of {os.environ['MASTER_ADDR']}: {' '.join(sys.argv[1:])}", flush=True)
(here / f"running-{rank}").touch()
while not all((here / f"running-{other}").exists() for other in (0, 1)):
    time.sleep(0.01)
if code := os.environ.get(f"CODE_{rank}"):
    sys.exit(int(code))
time.sleep(60)
"""


@pytest.fixture
def program(tmp_path: Path) -> str:
    (tmp_path / "program.py").write_text(PROGRAM)
    return str(executable(tmp_path / "program", f'exec {sys.executable} {tmp_path}/program.py "$@"'))


def checkpoints(tmp_path: Path, start: str, job: str = JOB) -> Path:
    folder = tmp_path / "runs" / f"thinkwright-{job}" / start / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def calls(tmp_path: Path, rank: int) -> list[str]:
    return (tmp_path / "runs" / f"thinkwright-{JOB}" / "logs" / f"rank-{rank}.log").read_text().splitlines()


def test_the_script_passes_shellcheck() -> None:
    checked = subprocess.run(
        [Path(sys.executable).with_name("shellcheck"), SBATCH], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout


def test_a_job_goes_on_from_its_own_newest_checkpoint_and_no_other(
    submit: Submit, program: str, tmp_path: Path
) -> None:
    (checkpoints(tmp_path, "2030-01-01_00-00-00", job="4216") / "last.ckpt").touch()
    ends = {"PYTHON": program, "CODE_0": "0", "CODE_1": "0"}
    assert submit("--config", "c.yaml", **ends)[0] == 0
    for rank in (0, 1):  # each task has a log of its own
        (call,) = calls(tmp_path, rank)
        assert call.startswith(f"{rank} of localhost: cli.py fit --config c.yaml --run.name thinkwright-{JOB} ")
        assert call.endswith("--trainer.num_nodes 2 --trainer.devices 1")
    for start in ("2026-01-01_00-00-00", "2026-01-02_00-00-00"):
        (checkpoints(tmp_path, start) / "last.ckpt").touch()
    checkpoints(tmp_path, "2026-01-03_00-00-00")  # stopped before it saved
    assert submit("--config", "c.yaml", **ends, SLURM_RESTART_COUNT="1")[0] == 0
    newest = tmp_path / "runs" / f"thinkwright-{JOB}" / "2026-01-02_00-00-00" / "checkpoints" / "last.ckpt"
    assert calls(tmp_path, 1)[1].endswith(f"--ckpt_path {newest}")


@pytest.mark.parametrize("saves", [True, False])
def test_near_its_limit_a_job_is_requeued_if_it_came_further(
    saves: bool, submit: Submit, program: str, tmp_path: Path
) -> None:
    folder = checkpoints(tmp_path, "2026-01-01_00-00-00")
    (folder / "last.ckpt").touch()
    code, said = submit(PYTHON=program, SAVE=str(folder) if saves else "", limit_at="running-1")
    assert code == 143, said
    assert ("not requeued" in said) != saves
    assert (tmp_path / "requeued").is_file() == saves
    if saves:
        assert (tmp_path / "requeued").read_text() == f"{JOB}\n"


def test_a_task_that_fails_ends_its_job_for_good(submit: Submit, program: str, tmp_path: Path) -> None:
    """Though the others save at the SIGTERM that they get for it, and end with that code."""
    folder = checkpoints(tmp_path, "2026-01-01_00-00-00")
    code, said = submit(PYTHON=program, SAVE=str(folder), CODE_1="2")
    assert code != 0
    assert "not requeued" in said
    assert (folder / "last.ckpt").is_file()
    assert not (tmp_path / "requeued").exists()


def test_outside_of_the_checkout_the_script_says_where_to_submit(tmp_path: Path) -> None:
    done = subprocess.run(
        ["bash", SBATCH], cwd=tmp_path, env=os.environ | BATCH, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "submit from the checkout" in done.stderr


def test_a_job_saves_ahead_of_its_limit_and_its_second_start_ends_the_run(
    submit: Submit, cache: Path, tmp_path: Path
) -> None:
    """All ranks are told at once, in the middle of a step, and come to its end."""
    fit = [
        "--config", DEMO, *SHORT, "--data.cache_dir", str(cache), "--data.train_rows", "320", "--data.num_workers", "1",
        "--model.evaluation.rows", "0", "--trainer.accumulate_grad_batches", "1", "--trainer.max_epochs", "1",
        "--checkpoint.every_n_train_steps", "1",
    ]  # fmt: skip
    job = tmp_path / "runs" / f"thinkwright-{JOB}"
    code, _ = submit(*fit, PYTHON=sys.executable, limit_at=f"runs/{job.name}/*/checkpoints/last.ckpt")
    assert code == 143, calls(tmp_path, 0) + calls(tmp_path, 1)
    assert (tmp_path / "requeued").read_text() == f"{JOB}\n"
    (last,) = job.glob("*/checkpoints/last.ckpt")
    assert 1 <= read_checkpoint(last)["global_step"] < 10
    code, _ = submit(*fit, PYTHON=sys.executable, SLURM_RESTART_COUNT="1")
    said, others = ("\n".join(calls(tmp_path, rank)) for rank in (0, 1))
    assert code == 0, said + others
    assert list(job.glob("*/checkpoints/last.ckpt")) == [last]  # in the same run
    assert read_checkpoint(last)["global_step"] == 10
    assert said.count("written to") == 1
    assert "written to" not in others
    assert "data:" not in others


def test_two_machines_under_torchrun_train_what_one_process_trains(trained: Path, cache: Path, in_tmp: Path) -> None:
    port = free_port()
    machines = [
        subprocess.Popen(
            [
                "timeout", "-k", "40", "150", sys.executable, "-m", "torch.distributed.run", "--nnodes", "2",
                "--node_rank", str(rank), "--nproc_per_node", "1", "--master_addr", "127.0.0.1", "--master_port", port,
                str(ROOT / "cli.py"), "fit", "--config", DEMO, *SHORT, "--data.cache_dir", str(cache),
                "--trainer.num_nodes", "2", "--trainer.accumulate_grad_batches", "1",
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in (0, 1)
    ]  # fmt: skip
    said = [machine.communicate()[0] for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], said
    assert "written to" in said[0]
    assert "run" not in said[1]  # what is said once is said by the first
    (run,) = (in_tmp / "runs" / "demo").iterdir()
    assert list((in_tmp / "runs").iterdir()) == [run.parent]
    (alone,) = (trained / "runs" / "demo").iterdir()
    ours, theirs = (json.loads((folder / "summary.json").read_text()) for folder in (run, alone))
    for moment in ("before", "after"):
        for name in ("loss", "loss_thought", "loss_answer", "loss_end", "loss_tag_open", "loss_tag_close"):
            assert ours[moment][name] == pytest.approx(theirs[moment][name], rel=1e-4), (moment, name)
    assert ours["after"]["answered"] == theirs["after"]["answered"] == 8
