"""The measurements in the process of a side: time, loss and memory of every optimizer step."""

import json
import time
from pathlib import Path
from typing import Any


def high_water() -> float:
    """Return the peak memory of this process in GB."""
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024 / 1e9


def say(**figures: Any) -> None:
    print(json.dumps(figures), flush=True)


class Steps:
    """Call `begin` before the first step and `end` after each step.

    The time of a step starts at the end of the step before, so loading counts. On CUDA the host waits for the device
    only after the warm-up and at the end: times come from events, and losses are read at the end.
    """

    def __init__(self, task: dict[str, Any]) -> None:
        import torch

        self.torch, self.cuda, self.warm = torch, task["device"] == "cuda", task["warm"]
        self.each_peak = task.get("ramp", False)
        self.tokens, self.count = task["supervised"], len(task["steps"])
        self.profile = task.get("profile")
        self.profiler: Any = None
        self.marks: list[Any] = []
        self.losses: list[Any] = []
        self.peaks: list[tuple[float, float]] = []
        self.timed_from = self.timed_to = 0.0

    def begin(self) -> None:
        self.begun = time.perf_counter()
        self._mark()
        if not self.warm:
            self._start_timing()

    def end(self, loss: Any) -> None:
        self.losses.append(loss.detach().clone())
        self._mark()
        done = len(self.losses)
        if not self.cuda:
            seconds = self.marks[-1] - self.marks[-2]
            say(step=done, seconds=round(seconds, 4), loss=float(loss), tokens=self.tokens[done - 1], peak=high_water())
        elif self.each_peak:
            self.torch.cuda.synchronize()
            self.peaks.append((self.torch.cuda.max_memory_allocated() / 1e9, self.torch.cuda.memory_reserved() / 1e9))
            self.torch.cuda.reset_peak_memory_stats()
        if done == self.warm:
            self._start_timing()
        if done == self.count:
            self._finish_timing()

    def _mark(self) -> None:
        if self.cuda:
            event: Any = self.torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            event.record()
            self.marks.append(event)
        else:
            self.marks.append(time.perf_counter())

    def _start_timing(self) -> None:
        if self.cuda:
            self.torch.cuda.synchronize()
        if self.profile:
            self.profiler = self.torch.profiler.profile(record_shapes=True)
            self.profiler.start()
        self.timed_from = time.perf_counter()

    def _finish_timing(self) -> None:
        if self.cuda:
            self.torch.cuda.synchronize()
        self.timed_to = time.perf_counter()
        if self.profiler is not None:
            self.profiler.stop()

    def figures(self) -> dict[str, Any]:
        """Return the measurements of all finished steps. `wall` is the time of the steps after the warm-up, which have
        `timed_tokens`."""
        if self.cuda:
            self.torch.cuda.synchronize()
            seconds = [a.elapsed_time(b) / 1e3 for a, b in zip(self.marks, self.marks[1:], strict=False)]
        else:
            seconds = [b - a for a, b in zip(self.marks, self.marks[1:], strict=False)]
        figures = {
            "seconds": [round(s, 5) for s in seconds],
            "losses": [float(loss) for loss in self.losses],
            "tokens": self.tokens[: len(seconds)],
            "wall": self.timed_to - self.timed_from if self.timed_to else None,
            "timed_tokens": sum(self.tokens[self.warm :]),
            "peak_host": high_water(),
        }
        if self.cuda:
            figures["peak"] = self.torch.cuda.max_memory_allocated() / 1e9
            figures["peak_reserved"] = self.torch.cuda.max_memory_reserved() / 1e9
            if self.each_peak:
                figures["peaks"] = self.peaks
        else:
            figures["peak"] = figures["peak_host"]
        return figures
