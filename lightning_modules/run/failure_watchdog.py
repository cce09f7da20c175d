"""An error on one rank ends all ranks within seconds; without it the others wait 30 minutes in a collective."""

import os
import sys
import threading
import time
from datetime import timedelta
from typing import Any

import torch.distributed as dist
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from errors import UserError
from lightning_modules.run.signals import Stopped
from visible import visible

POLL = 0.5  # seconds between two checks for a failed rank
GRACE = 3 * POLL  # seconds that a failed rank stays alive, so that the others can read its error
PATIENCE = 20 * POLL  # seconds that a failed rank then waits for the first rank to end it


class FailureWatchdog(Callback):
    """Ends all ranks with the error of the rank that failed: a thread per rank watches a store on the first rank."""

    def __init__(self) -> None:
        self.already_printed = False  # another rank has already printed this error
        self.child = False  # the first rank started this process, and is killed if it ends with another code than 0
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
        trainer.strategy.barrier("watchdog")  # no rank continues before every rank can report an error

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if self._store is None:
            return
        self._closed.set()
        if getattr(exception, "together", False):
            self.already_printed = self._rank != 0
            return
        code = exception.exit_code if isinstance(exception, Stopped) else 2 if isinstance(exception, UserError) else 1
        text = f"{type(exception).__name__}: {exception}" if code == 1 else str(exception)
        try:
            first = self._store.compare_set("failed", "", f"{self._rank} {code} {text}").decode()
        except RuntimeError:  # the first rank has ended, and its store with it
            return
        time.sleep(GRACE)
        self.already_printed = not first.startswith(f"{self._rank} ")
        until = time.monotonic() + PATIENCE
        while self.child and os.getppid() == self._parent and time.monotonic() < until:
            time.sleep(POLL)

    def close(self) -> None:
        """Stop watching, on every rank, when all work is done: a rank that ends now has not failed."""
        if self._store is not None:
            dist.barrier()
            self._closed.set()
            self._watching.join(GRACE)  # a thread inside the store's C++ aborts the process when Python shuts down

    def _watch(self, store: TCPStore) -> None:
        while not self._closed.wait(POLL):
            try:
                if not store.check(["failed"]):
                    continue
                rank, code, text = store.get("failed").decode().split(" ", 2)
            except Exception:  # DistNetworkError or RuntimeError, by version of torch
                rank, code, text = "0", "1", "its process has ended"
            if not self._closed.wait(POLL):  # a rank that fails itself reports its own error
                print(
                    f"rank {self._rank} ends because rank {rank} failed: {visible(text)}", file=sys.stderr, flush=True
                )
                # A child's code must be 0: for another code the first rank is killed before it prints its error
                os._exit(0 if self.child else int(code))
