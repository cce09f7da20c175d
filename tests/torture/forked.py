"""A command in a process of its own, forked from a process that has imported everything: it starts in milliseconds.

The parent only imports. It runs no model and starts no thread, because a forked process has only the forking thread.
"""

import ctypes
import os
import runpy
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import disk

ROOT = Path(__file__).resolve().parents[2]
CLI = str(ROOT / "cli.py")
DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of prctl(2)
MODULES = (
    "commands.fit", "commands.export", "commands.generate", "commands.preview", "commands.replay", "commands.estimate",
    "transformers.models.qwen2.modeling_qwen2", "peft", "datasets", "pyarrow.parquet", "safetensors.torch",
    "torch.utils.tensorboard", "torch._dynamo", "torch.distributed.fsdp", "torch.distributed.tensor.parallel",
)  # fmt: skip


def import_everything() -> None:
    """Import what the commands import, in the environment that all of them share."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
    for name in MODULES:
        import_module(name)
    import tqdm

    tqdm.tqdm.monitor_interval = 0  # else a bar starts a thread
    disk.SETTLED = 0.0  # else the speed of the machine decides whether a digest is remembered, that is, what is written


@dataclass(frozen=True)
class Ended:
    """The end of a process."""

    code: int  # negative: the signal that killed it
    out: str
    err: str
    seconds: float

    @property
    def said(self) -> str:
        return self.out + self.err


class Child:
    """A forked process in `folder`, in a session of its own. It keeps what the process prints in memory."""

    def __init__(self, work: Callable[[], object], folder: Path, environment: Mapping[str, str] | None = None) -> None:
        self.started = time.monotonic()
        self._texts = [os.memfd_create(name) for name in ("out", "err")]
        sys.stdout.flush()
        sys.stderr.flush()
        parent = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                self._become(folder, environment or {}, parent)
                code = _code_of(work)
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        self._ended: Ended | None = None

    def _become(self, folder: Path, environment: Mapping[str, str], parent: int) -> None:
        """Leave the parent's session, streams, signal handlers and folder."""
        os.setsid()
        ctypes.CDLL(None).prctl(DIE_WITH_PARENT, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
        for stream, text in enumerate(self._texts, 1):
            os.dup2(text, stream)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.stdin = open(0, closefd=False)  # noqa: SIM115
        sys.stdout, sys.stderr = (open(n, "w", buffering=1, closefd=False, encoding="utf-8") for n in (1, 2))  # noqa: SIM115
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.environ |= {"HOME": str(folder / "home"), "XDG_CACHE_HOME": str(folder / "home" / ".cache"), **environment}
        os.chdir(folder)

    def send(self, signum: int) -> None:
        """Send a signal to the process and those that it started, if they live."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signum) if os.getpgid(self.pid) == self.pid else os.kill(self.pid, signum)

    def lives(self, seconds: float = 0.0) -> bool:
        """Wait up to `seconds` for the end; return whether the process still lives."""
        if self._ended is None:
            handle = os.pidfd_open(self.pid)
            try:
                if select.select([handle], [], [], max(0.0, seconds))[0]:
                    self._collect()
            finally:
                os.close(handle)
        return self._ended is None

    def end(self, limit: float = 120.0) -> Ended:
        """Wait for the end. Raise TimeoutError after `limit` seconds; the process is then killed."""
        if self.lives(limit):
            self.send(signal.SIGKILL)
            self.lives(10)
            said = self._ended.said[-600:] if self._ended else ""
            raise TimeoutError(f"did not end in {limit:.0f} s; it said {said!r}")
        assert self._ended is not None
        return self._ended

    def _collect(self) -> None:
        seconds = time.monotonic() - self.started
        _, status = os.waitpid(self.pid, 0)
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)  # processes that it left
        texts = []
        for text in self._texts:
            texts.append(os.pread(text, os.fstat(text).st_size, 0).decode("utf-8", "replace"))
            os.close(text)
        self._ended = Ended(os.waitstatus_to_exitcode(status), texts[0], texts[1], seconds)


def command(args: Sequence[str], before: Callable[[], object] | None = None) -> Callable[[], object]:
    """Return the work of `python cli.py ARGS`; `before` runs in the new process first."""

    def work() -> None:
        if before is not None:
            before()
        sys.argv = [CLI, *args]
        runpy.run_path(CLI, run_name="__main__")

    return work


def run(args: Sequence[str], folder: Path, before: Callable[[], object] | None = None, limit: float = 120.0) -> Ended:
    """Run one command in a folder until it ends."""
    return Child(command(args, before), folder).end(limit)


def _code_of(work: Callable[[], object]) -> int:
    """The exit code that Python gives a program with this end."""
    try:
        work()
    except SystemExit as stop:
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
            return 1
        return int(stop.code or 0)
    return 0
