"""chat, driven through a pseudo-terminal with a trained run."""

import os
import pty
import re
import select
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.slow


class Terminal:
    """A process with a terminal of its own."""

    def __init__(self, *args: str) -> None:
        self.said = ""
        self.pid, self.fd = pty.fork()
        if not self.pid:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell that started the tests in the background ignores it
            os.execv(sys.executable, [sys.executable, str(ROOT / "cli.py"), *args])

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def wait_for(self, pattern: str, seconds: float = 90) -> str:
        """Return what was said up to a match, and forget it."""
        until = time.monotonic() + seconds
        while not (found := re.search(pattern, self.said, re.DOTALL)):
            assert time.monotonic() < until, self.said
            if select.select([self.fd], [], [], 0.2)[0]:
                with suppress(OSError):  # the process has ended
                    self.said += os.read(self.fd, 4096).decode(errors="replace")
        before, self.said = self.said[: found.end()], self.said[found.end() :]
        return before

    def end(self) -> int:
        """Return the exit code."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@pytest.fixture
def terminal(in_trained: Path) -> Iterator[Terminal]:
    """A chat whose answers think for a long time: the model was hardly trained."""
    one = Terminal("chat", "--device", "cpu", "--max_new_tokens", "900", "--min_thinking", "850", "--grammar", "true")
    yield one
    with suppress(OSError):
        os.kill(one.pid, 9)
        os.waitpid(one.pid, 0)
    os.close(one.fd)


def test_ctrl_c_stops_an_answer_and_not_the_chat(terminal: Terminal) -> None:
    said = terminal.wait_for("> ")
    assert "each question stands alone" in said
    terminal.type("Solve x + 5 = 12\n")
    terminal.wait_for(r"1\. \S+")
    terminal.type("\x03")
    terminal.wait_for(r"stopped.*> ")
    terminal.type("/think off\n")
    terminal.wait_for(r"thinking: off.*> ")
    terminal.type("Solve x + 5 = 12\n")
    said = terminal.wait_for(r"tokens, [\d.]+ s.*> ")
    assert "1. " not in said and "\x1b[1m" in said
    terminal.type("/nothing\n")
    terminal.wait_for("is no command.*> ")
    terminal.type("\x1b[A\x1b[A\x1b[A\n")  # three lines back in the history
    terminal.wait_for(r"thinking: off.*> ")
    terminal.type("\x03")
    terminal.wait_for(r"Ctrl-D ends.*> ")
    terminal.type("/quit\n")
    assert terminal.end() == 0
