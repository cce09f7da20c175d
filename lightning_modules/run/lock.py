"""One process writes a run at a time: a lock on a file in its folder.

The system releases the lock when its process ends, however it ends. So a stale file is no obstacle, and it does not
matter if another program has the same process id later. A forked process closes its copy of the file, so it does not
keep the lock after a kill of the first. The text in the file is for the message only.
"""

import fcntl
import os
import socket
from datetime import datetime
from pathlib import Path

from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.utilities import rank_zero_only

from disk import disk_errors
from errors import UserError


def is_first_process() -> bool:
    """Return whether this process is the first rank, also before a Trainer exists.

    Lightning's own launcher tells the first processes of the machines apart by NODE_RANK only: each has local rank 0.
    """
    rank: int = rank_zero_only.rank  # type: ignore[attr-defined]
    return rank == 0 and LightningEnvironment().node_rank() == 0


class RunLock:
    """Held from its making until `release`. Raises UserError with process and host if another process holds it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "run.lock"
        with disk_errors("run.root", folder):
            self._file = self.path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.seek(0)
            holder = self._file.read(200).strip() or "another process"
            self._file.close()
            fix = "wait until it ends, or stop it; or start a new run without --ckpt_path"
            raise UserError("run", folder, f"is being written by {holder}", fix) from None
        except OSError:
            pass  # a file system without locks
        os.register_at_fork(after_in_child=self._file.close)
        with disk_errors("run.root", self.path):
            self._file.truncate(0)
            self._file.write(f"process {os.getpid()} on {socket.gethostname()} since {datetime.now():%F %T}\n")
            self._file.flush()

    def release(self) -> None:
        """Free the run for other processes. A second call does nothing."""
        self._file.close()
