import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from errors import UserError
from lightning_modules.run.lock import RunLock, is_first_process
from tests.conftest import ROOT

HOLD = (
    "import sys; from pathlib import Path; from lightning_modules.run.lock import RunLock\n"
    "lock = RunLock(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
)


def holder(folder: Path) -> "subprocess.Popen[str]":
    """Another process that holds the lock."""
    command = [sys.executable, "-c", HOLD, str(folder)]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout and process.stdout.readline() == "held\n"
    return process


def test_a_second_process_is_refused_with_the_first_ones_id_and_machine(tmp_path: Path) -> None:
    with holder(tmp_path) as first:
        with pytest.raises(UserError) as refused:
            RunLock(tmp_path)
        text = str(refused.value)
        assert f"process {first.pid} on {socket.gethostname()} since " in text and "\n" not in text
        first.kill()


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM])
def test_the_lock_of_a_dead_process_is_no_obstacle(tmp_path: Path, signum: int) -> None:
    with holder(tmp_path) as first:
        first.send_signal(signum)
        first.wait()
        lock = RunLock(tmp_path)
        assert f"process {os.getpid()} " in (tmp_path / "run.lock").read_text()
        lock.release()


def test_a_released_lock_can_be_taken_again(tmp_path: Path) -> None:
    RunLock(tmp_path).release()
    RunLock(tmp_path).release()
    assert f"process {os.getpid()} " in (tmp_path / "run.lock").read_text()


FORK = (
    "import os, sys; from pathlib import Path; from lightning_modules.run.lock import RunLock\n"
    "lock = RunLock(Path(sys.argv[1])); begun, begins = os.pipe()\n"
    "if os.fork(): os.read(begun, 1); print('held', flush=True)\n"  # the fork has run by then
    "else: os.write(begins, b'.')\n"
    "sys.stdin.read()"
)


def test_a_forked_process_that_outlives_a_killed_one_does_not_keep_the_lock(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FORK, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdin and first.stdout and first.stdout.readline() == "held\n"
        first.kill()
        first.wait()
        RunLock(tmp_path).release()  # the forked one still waits for the end of its input


@pytest.mark.parametrize(("machine", "first"), [(None, True), ("0", True), ("1", False)])
def test_only_the_first_machine_holds_the_lock(
    machine: str | None, first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lightning's own launcher starts each machine with local rank 0, and tells them apart by NODE_RANK."""
    for name in ("NODE_RANK", "GROUP_RANK"):
        monkeypatch.delenv(name, raising=False)
    if machine is not None:
        monkeypatch.setenv("NODE_RANK", machine)
    assert is_first_process() == first


def test_a_folder_that_vanished_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"run\.root: .*does not exist any more"):
        RunLock(tmp_path / "gone")
