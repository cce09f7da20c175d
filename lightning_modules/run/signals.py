"""Signals end a fit after a whole optimizer step, on all ranks together.

Lightning's own handler of SIGTERM starts a collective inside the handler. It hangs for 30 minutes if another rank than
the first gets the signal.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch import Trainer

SAVE, NOTHING = 1, 0  # requests of a rank beside signals; the numbers of signals are higher


class Stopped(BaseException):
    """A signal asked training to end. It is not an Exception, so that no library handles it and continues."""

    def __init__(self, signum: int, together: bool = False) -> None:
        super().__init__(signal.Signals(signum).name)
        self.exit_code = 128 + signum  # as shells count
        self.together = together  # all ranks raise it at the same step


class Signals:
    """Handles SIGINT (Ctrl-C) and SIGTERM of this process: at once, or while `deferred` after the optimizer step.

    A second signal while `deferred` ends the process at once.
    """

    def __init__(self) -> None:
        self.received = NOTHING
        self.deferred = False
        self._process = os.getpid()

    @contextmanager
    def taken(self) -> Iterator["Signals"]:
        """Install the handlers, and restore the former ones at the end."""
        if threading.current_thread() is not threading.main_thread():
            yield self  # Python installs handlers in the main thread only
            return
        before = {signum: signal.signal(signum, self._handle) for signum in (signal.SIGINT, signal.SIGTERM)}
        hook = sys.unraisablehook
        sys.unraisablehook = lambda lost: None if isinstance(lost.exc_value, Stopped) else hook(lost)
        try:
            yield self
        finally:
            sys.unraisablehook = hook
            for signum, handler in before.items():
                signal.signal(signum, handler)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            return  # a forked process leaves the decision to its parent
        at_once = not self.deferred or self.received
        # Also if it is raised: Python loses an exception of a finalizer. Training then stops after its first step
        self.received = signum
        if at_once:
            raise Stopped(signum)
        name = signal.Signals(signum).name
        # os.write, because the signal may have interrupted a print, and print is not reentrant
        os.write(2, f"\n{name}: stopping after this optimizer step and saving; a second one stops at once\n".encode())


class Agreement:
    """The highest request of all ranks. It travels in CPU tensors, so that no rank waits for a GPU."""

    def __init__(self) -> None:
        self._group: Any = None

    def highest(self, mine: int, trainer: Trainer) -> int:
        """Return the highest value of all ranks. Every rank must call it at the same point."""
        if trainer.world_size == 1:
            return mine
        if self._group is None:
            self._group = dist.new_group(backend="gloo")
        value = torch.tensor(mine)
        dist.all_reduce(value, dist.ReduceOp.MAX, group=self._group)
        return int(value)
