"""Math-Verify can take no longer than its limit, cannot disturb its parent, and ends with it."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from lightning_modules.judge.math_verify_worker import MathVerify

ENDLESS = r"9^{9^{9^{9}}}"
WORKER = str(Path(__file__).parents[3] / "lightning_modules/judge/math_verify_worker.py")


def gone(pid: int, within_s: float) -> bool:
    """Whether a process ends in time. It may stay as a zombie of a parent that does not wait for it."""
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.05)
    return False


def test_expressions_are_the_same_or_different() -> None:
    math_verify = MathVerify(limit_s=20)
    assert math_verify.compare(r"\frac{1}{\sqrt{2}}", r"\frac{\sqrt{2}}{2}") == "same"
    assert math_verify.compare(r"\frac{1}{3}\pi r^2 h", r"\frac{1}{3}\pi r^2") == "different"  # h is no unit
    assert math_verify.compare("The answer is $x = 7$.", "So 7.", as_found=True) == "same"
    assert math_verify.compare("", "") == "different"
    assert math_verify.starts == 1
    math_verify.close()
    assert math_verify.compare("x", "x") == "same"
    assert math_verify.starts == 2


def test_a_comparison_that_takes_too_long_is_cut_off_and_the_next_one_works() -> None:
    math_verify = MathVerify(limit_s=20)
    assert math_verify.compare("x", "x") == "same"
    math_verify.limit_s = 0.5
    started = time.monotonic()
    assert math_verify.compare(ENDLESS, "9") == "time limit"
    assert time.monotonic() - started < 3
    math_verify.limit_s = 20
    assert math_verify.compare("x", "x") == "same"
    assert (math_verify.starts, math_verify.timeouts) == (2, 1)


def test_a_worker_that_dies_is_replaced() -> None:
    math_verify = MathVerify(limit_s=20)
    assert math_verify.compare("x", "x") == "same"
    assert math_verify._worker is not None
    os.kill(math_verify._worker.pid, signal.SIGKILL)
    math_verify._worker.wait()
    assert math_verify.compare("x", "x") == "same"


@pytest.mark.parametrize(
    "command",
    [
        ("/nonexistent",),
        ("false",),
        (sys.executable, "-c", "raise ImportError"),
        (sys.executable, "-c", "print('something else')"),
    ],
)
def test_a_worker_that_cannot_start_fails_once_with_a_message(
    command: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    math_verify = MathVerify(command=command)
    with caplog.at_level("WARNING", logger="thinkwright"):
        assert [math_verify.compare("x", "x"), math_verify.compare("x", "x")] == ["failed", "failed"]
    assert math_verify.starts == len(caplog.messages) == 1
    assert "Math-Verify did not start" in caplog.messages[0]


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [("print('nonsense')", "failed"), ("raise SystemExit", "failed"), ("import time; time.sleep(60)", "time limit")],
)
def test_a_worker_that_misbehaves_after_its_start_does_no_harm(answer: str, outcome: str) -> None:
    program = f"print('ready', flush=True); input(); {answer}"
    math_verify = MathVerify(limit_s=1, command=(sys.executable, "-c", program))
    assert [math_verify.compare("x", "x"), math_verify.compare("x", "x")] == [outcome, outcome]
    assert math_verify.starts == 2


def test_what_the_package_prints_does_not_reach_the_answers(tmp_path: Path) -> None:
    (tmp_path / "math_verify.py").write_text(
        "print('same')\ndef LatexExtractionConfig(**more): print('same')\n"
        "def parse(*given, **more): print('same'); return [1]\n"
        "def verify(*given, **more): print('same'); return False\n"
    )
    program = (
        f"import sys, runpy; sys.path.insert(0, {str(tmp_path)!r}); runpy.run_path({WORKER!r}, run_name='__main__')"
    )
    math_verify = MathVerify(limit_s=20, command=(sys.executable, "-c", program))
    assert [math_verify.compare("x", "x") for _ in range(3)] == ["different"] * 3


def test_threads_may_share_it() -> None:
    math_verify, outcomes = MathVerify(limit_s=20), []

    def compare(number: int) -> None:
        outcomes.append(math_verify.compare(f"x^{number % 2}", "x^1") == ("same" if number % 2 else "different"))

    threads = [threading.Thread(target=compare, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == [True] * 8
    assert math_verify.starts == 1


PARENT = """
import sys, time, threading
sys.path.insert(0, {root!r})
from lightning_modules.judge.math_verify_worker import MathVerify
worker = MathVerify(limit_s=2)
worker.compare("x", "x")
print(worker._worker.pid, flush=True)
{then}
"""


@pytest.mark.parametrize("then", ["time.sleep(60)", f"worker.compare({ENDLESS!r}, '9'); time.sleep(60)"])
def test_it_ends_when_its_parent_is_killed_waiting_or_at_work(then: str) -> None:
    root = str(Path(__file__).parents[3])
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT.format(root=root, then=then)], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    time.sleep(0.3)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert gone(pid, within_s=8)


def test_it_ends_when_its_parent_ends() -> None:
    root = str(Path(__file__).parents[3])
    done = subprocess.run(
        [sys.executable, "-c", PARENT.format(root=root, then="")], capture_output=True, text=True, check=True
    )
    assert gone(int(done.stdout), within_s=1)


def test_a_forked_process_has_a_worker_of_its_own() -> None:
    math_verify = MathVerify(limit_s=20)
    assert math_verify.compare("x", "x") == "same"
    assert math_verify._worker is not None
    child = os.fork()
    if child == 0:
        os._exit(0 if math_verify.compare("x", "y") == "different" and math_verify.starts == 2 else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert math_verify.compare("x", "x") == "same"
    assert math_verify.starts == 1
