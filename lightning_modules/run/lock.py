"""One process writes a run at a time: a lock on a file in its folder.

The system releases the lock when its process ends, however it ends. So a stale file is no obstacle, and it does not
matter if another program has the same process id later. The text in the file is for the message only.
"""

import fcntl
import os
import socket
from datetime import datetime
from pathlib import Path

from disk import disk_errors
from errors import UserError


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
        self._file.truncate(0)
        self._file.write(f"process {os.getpid()} on {socket.gethostname()} since {datetime.now():%Y-%m-%d %H:%M:%S}\n")
        self._file.flush()

    def release(self) -> None:
        """Free the run for other processes. A second call does nothing."""
        self._file.close()
