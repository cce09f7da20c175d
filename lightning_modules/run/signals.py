"""How a run ends early: on a signal after a whole optimizer step, and on every rank when one of them fails.

Left alone, Lightning answers SIGTERM from within the signal handler with a collective, which hangs for 30 minutes where
another rank than the first gets the signal; and a rank that fails leaves the others waiting in theirs.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from errors import UserError

POLL = 0.5  # seconds between two looks at whether another rank has failed
GRACE = 3 * POLL  # for which a rank that failed stays, so that the others can read why
PATIENCE = 20 * POLL  # for which, after that, one that failed waits for the rank that started it to end by itself
SAVE, NOTHING = 1, 0  # what ranks ask of each other beside signals, whose numbers are higher


class Stopped(BaseException):
    """Training was asked to end by a signal. Not an Exception: no library is to take it for an error and go on."""

    def __init__(self, signum: int, together: bool = False) -> None:
        super().__init__(signal.Signals(signum).name)
        self.exit_code = 128 + signum  # as shells count
        self.together = together  # raised by all ranks at the same step


class Signals:
    """Takes Ctrl-C and SIGTERM for this process: at once, or while `deferred` at the next good moment.

    A second one while deferred ends the process where it is.
    """

    def __init__(self) -> None:
        self.received = NOTHING
        self.deferred = False
        self._process = os.getpid()

    @contextmanager
    def taken(self) -> Iterator["Signals"]:
        """Installs the handlers and puts back those that were there."""
        if threading.current_thread() is not threading.main_thread():
            yield self  # Python allows it nowhere else
            return
        before = {signum: signal.signal(signum, self._handle) for signum in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield self
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            return  # a process forked from this one, which decides for it
        if not self.deferred or self.received:
            raise Stopped(signum)
        self.received = signum
        name = signal.Signals(signum).name
        # os.write: a print that was interrupted cannot be entered again
        os.write(2, f"\n{name}: stopping after this optimizer step and saving; once more stops at once\n".encode())


class Agreement:
    """What any rank wants, wanted by all: on CPU tensors, so that no GPU is waited for."""

    def __init__(self) -> None:
        self._group: Any = None

    def highest(self, mine: int, trainer: Trainer) -> int:
        """The highest of all ranks' values; every rank must ask at the same moment."""
        if trainer.world_size == 1:
            return mine
        if self._group is None:
            self._group = dist.new_group(backend="gloo")
        value = torch.tensor(mine)
        dist.all_reduce(value, dist.ReduceOp.MAX, group=self._group)
        return int(value)


class FailureWatchdog(Callback):
    """Ends all ranks, with the error, when one has failed: a thread on each looks into a store that the first keeps.

    `told`: what ended this rank is told by another one, so that it need not be told twice.
    """

    def __init__(self) -> None:
        self.told = False
        self.child = False  # started by the first rank, which takes an exit code for a reason to be killed at once
        self._store: TCPStore | None = None
        self._closed = threading.Event()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if trainer.world_size == 1 or self._store is not None:
            return
        environment: Any = trainer.strategy.cluster_environment  # type: ignore[attr-defined]
        self._rank = trainer.global_rank
        self.child = isinstance(environment, LightningEnvironment) and trainer.local_rank > 0
        self._parent = os.getppid()
        host, wait = environment.main_address, timedelta(seconds=60)
        if self._rank == 0:
            self._store = TCPStore(host, 0, is_master=True, wait_for_workers=False, timeout=wait)
        port = trainer.strategy.broadcast(self._store.port if self._store else 0)
        if self._store is None:
            self._store = TCPStore(host, port, is_master=False, timeout=wait)
        self._watching = threading.Thread(target=self._watch, args=(self._store,), daemon=True, name="watchdog")
        self._watching.start()
        trainer.strategy.barrier("watchdog")  # nobody fails before all can tell

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if self._store is None:
            return
        self._closed.set()
        if getattr(exception, "together", False):
            self.told = self._rank != 0
            return
        code = exception.exit_code if isinstance(exception, Stopped) else 2 if isinstance(exception, UserError) else 1
        text = f"{type(exception).__name__}: {exception}" if code == 1 else str(exception)
        try:
            first = self._store.compare_set("failed", "", f"{self._rank} {code} {text}").decode()
        except RuntimeError:  # the first rank is gone, and its store with it
            return
        time.sleep(GRACE)
        self.told = not first.startswith(f"{self._rank} ")
        until = time.monotonic() + PATIENCE
        while self.child and os.getppid() == self._parent and time.monotonic() < until:
            time.sleep(POLL)

    def close(self) -> None:
        """When all is done, on every rank: from here on it is no failure that another one ends."""
        if self._store is not None:
            dist.barrier()
            self._closed.set()
            self._watching.join(GRACE)  # one that is in the store's C++ while Python shuts down aborts the process

    def _watch(self, store: TCPStore) -> None:
        while not self._closed.wait(POLL):
            try:
                if not store.check(["failed"]):
                    continue
                rank, code, text = store.get("failed").decode().split(" ", 2)
            except Exception:  # by version: DistNetworkError, RuntimeError
                rank, code, text = "0", "1", "its process is gone"
            if not self._closed.wait(POLL):  # a rank that fails, too, tells so by itself
                print(f"rank {self._rank} ends, since rank {rank} did: {text}", file=sys.stderr, flush=True)
                # Else the first rank, which started this one, may be killed before it has said what ended it
                os._exit(0 if self.child else int(code))
