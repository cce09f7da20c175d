"""Math-Verify in a process of its own, with a hard time limit.

Math-Verify reads LaTeX into SymPy expressions and compares them. SymPy may work for hours on a short text, or fill the
memory; the package prints, and its own limits need the main thread. So it runs in a worker, which starts at the first
comparison. A worker that does not answer in time is killed, and the next comparison starts another. The worker ends
itself when its parent is gone: the kernel's alarm ends a comparison that hangs, end of file on its input a waiting one.

This file is also the worker's program; it then imports nothing of this project.
"""

import atexit
import contextlib
import json
import logging
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from typing import Any, Literal, TextIO

Outcome = Literal["same", "different", "time limit", "failed"]

_OUTCOMES: dict[str | None, Outcome] = {"same": "same", "different": "different", "failed": "failed"}
_START_S = 120  # importing SymPy takes a second, on a busy machine with a cold disk much longer
_WORKER_MEMORY = 4 * 2**30  # bytes of address space
log = logging.getLogger("thinkwright")


class MathVerify:
    """Compares LaTeX expressions with Math-Verify in a worker. `limit_s`: seconds for one comparison.

    `starts` and `timeouts` count the workers and the comparisons that were cut off. Threads may share it; a forked
    process starts a worker of its own.
    """

    def __init__(self, limit_s: float = 3.0, command: tuple[str, ...] = (sys.executable, "-P", __file__)) -> None:
        self.limit_s, self.command = limit_s, command
        self.starts = self.timeouts = 0
        self._worker: subprocess.Popen[bytes] | None = None
        self._owner = 0  # the process that started the worker
        self._broken = False  # a worker did not even start: no further is tried
        self._lock = threading.Lock()
        atexit.register(self.close)

    def compare(self, reference: str, written: str, as_found: bool = False) -> Outcome:
        """Return whether two LaTeX expressions, or with `as_found` the answers it finds in two texts, are the same."""
        request = {"reference": reference, "written": written, "as_found": as_found, "limit_s": self.limit_s}
        with self._lock:
            if self._broken or not self._ready():
                return "failed"
            assert self._worker is not None and self._worker.stdin is not None
            try:
                self._worker.stdin.write(json.dumps(request).encode() + b"\n")
                self._worker.stdin.flush()
                answer = self._line(self.limit_s)
            except OSError:
                answer = ""
            if answer in _OUTCOMES:
                return _OUTCOMES[answer]
            timed_out = answer is None or self._worker.poll() == -signal.SIGALRM
            self._end()
            self.timeouts += timed_out
            return "time limit" if timed_out else "failed"

    def close(self) -> None:
        """End the worker, if this process started one."""
        with self._lock:
            self._end()

    def _ready(self) -> bool:
        """Start a worker where none runs. False if it cannot start, which is said once."""
        if self._worker is not None and self._owner == os.getpid() and self._worker.poll() is None:
            return True
        self._end()
        self._owner = os.getpid()
        self.starts += 1
        with contextlib.suppress(OSError):  # no memory for another process
            self._worker = subprocess.Popen(
                self.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl+C in a terminal is for the parent
            )
        if self._worker is None or self._line(_START_S) != "ready":
            self._end()
            self._broken = True
            log.warning("Math-Verify did not start (pip install math-verify): LaTeX that needs it counts as different")
        return not self._broken

    def _line(self, limit_s: float) -> str | None:
        """Return the worker's next line; None after the limit, "" if the worker ended."""
        assert self._worker is not None and self._worker.stdout is not None
        end, line = time.monotonic() + limit_s, b""
        with selectors.DefaultSelector() as waiting:
            waiting.register(self._worker.stdout, selectors.EVENT_READ)
            while not line.endswith(b"\n"):
                if not waiting.select(max(0.0, end - time.monotonic())):
                    return None
                piece = os.read(self._worker.stdout.fileno(), 4096)
                if not piece:
                    self._worker.wait()
                    return ""
                line += piece
        return line.decode(errors="replace").strip()

    def _end(self) -> None:
        worker, self._worker = self._worker, None
        if worker is None:
            return
        for pipe in (worker.stdin, worker.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        if self._owner == os.getpid():  # a forked process leaves its parent's worker alone
            worker.kill()
            worker.wait()


def _serve(requests: TextIO, answers: TextIO) -> None:
    """Answer requests, one JSON object a line, until the input ends."""
    import resource

    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # the kernel ends the process, in whatever C code it is
    resource.setrlimit(resource.RLIMIT_AS, (_WORKER_MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
    import math_verify

    logging.disable(logging.CRITICAL)
    print("ready", file=answers, flush=True)
    for line in requests:
        request = json.loads(line)
        signal.setitimer(signal.ITIMER_REAL, 2 * request["limit_s"])
        try:
            answer = "same" if _same(math_verify, request) else "different"
        except BaseException:  # the package raises what SymPy, ANTLR and the interpreter raise
            answer = "failed"
        signal.setitimer(signal.ITIMER_REAL, 0)
        print(answer, file=answers, flush=True)


def _same(math_verify: Any, request: dict[str, Any]) -> bool:
    if request["as_found"]:
        sides = [math_verify.parse(request[side], parsing_timeout=None) for side in ("reference", "written")]
    else:
        from latex2sympy2_extended import NormalizationConfig

        # Its own cleaning takes letters after a product for units: the h of \pi r^2 h
        cleaning = NormalizationConfig(basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none")
        config = [math_verify.LatexExtractionConfig(normalization_config=cleaning)]
        sides = [
            math_verify.parse(f"${request[side]}$", config, fallback_mode="no_fallback", parsing_timeout=None)
            for side in ("reference", "written")
        ]
    return all(sides) and bool(math_verify.verify(*sides, timeout_seconds=None))


if __name__ == "__main__":
    # What the package prints must not reach the answers
    answers_to_parent = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    _serve(sys.stdin, answers_to_parent)
