"""A thread that writes the responses of requests that arrive at any time, together.

A request that arrives joins the sequences that are being written, and one that is cancelled leaves them. Each has its
own settings of decoding. Its tokens are handed on as they are chosen.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from datamodules.tokens.tokenizer import ThinkTokenizer
from lightning_modules.generation.choice_by_settings import ChoiceBySettings
from lightning_modules.generation.continuous_batching import ContinuousBatch, next_prompts
from lightning_modules.generation.decoding import Decoding
from lightning_modules.generation.folded_weights import FoldedWeights, not_foldable_reason
from lightning_modules.generation.memory import ROWS, no_room_reason, row_count, token_bytes
from lightning_modules.generation.token_choice import Request, Written
from lightning_modules.generation.with_transformers import generate_batch

if TYPE_CHECKING:
    from lightning_modules.net.think_net import ThinkNet

log = logging.getLogger("thinkwright")
End = Written | Exception  # of a response: what was written, or what failed
# Called in the engine's thread with new tokens, and at last with none and the end
Listener = Callable[[Sequence[int], End | None], None]


class QueueFull(Exception):
    """As many requests wait as may."""


class Stopping(Exception):
    """The engine takes no request any more."""


@dataclass(eq=False)
class Job:
    """A request that is waiting or being written."""

    request: Request
    listener: Listener
    told: int = 0  # tokens that were handed on
    cancelled: threading.Event = field(default_factory=threading.Event)

    def cancel(self) -> None:
        """Let nothing more be written. The listener is not called again, except for a step that is under way."""
        self.cancelled.set()


class Engine:
    """Writes with a net until `close`.

    decoding: that of requests without their own. Its max_new_tokens, equal in all of them, is the context: the most
              tokens of a prompt and its response
    rows:     most sequences at once; None: as many as the memory allows
    queue:    most requests that wait for a row
    """

    def __init__(
        self, net: "ThinkNet", tokenizer: ThinkTokenizer, decoding: Decoding, rows: int | None = None, queue: int = 64
    ) -> None:
        self.net, self.tokenizer, self.decoding, self.queue = net, tokenizer, decoding, queue
        self.context = context = decoding.settings.max_new_tokens
        net.eval()
        self.rows = rows or row_count(net, [Request([tokenizer.end_id], limit=context - 1)] * ROWS, context)
        self.reason = not_foldable_reason(net) or no_room_reason(net, self.rows * context * token_bytes(net))
        if self.reason:
            log.info(f"transformers' generate is used, not the faster one of this program: {self.reason}")
        self._waiting: deque[Job] = deque()
        self._running: dict[int, Job] = {}  # by number
        self._number = 0
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def submit(self, request: Request, listener: Listener) -> Job:
        """Begin to answer a request, whose prompt and limit fit into the context. Raises QueueFull or Stopping."""
        (job,) = self.submit_all([request], [listener])
        return job

    def submit_all(self, requests: Sequence[Request], listeners: Sequence[Listener]) -> list[Job]:
        """Begin to answer all these requests, or none. Raises QueueFull or Stopping."""
        assert all(request.limit and len(request.ids) + request.limit <= self.context for request in requests)
        jobs = [Job(request, listener) for request, listener in zip(requests, listeners, strict=True)]
        with self._changed:
            if self._closed:
                raise Stopping
            self._waiting = deque(job for job in self._waiting if not job.cancelled.is_set())
            room = self.queue + max(0, self.rows - len(self._running))
            if len(self._waiting) + len(jobs) > room:
                raise QueueFull
            self._waiting += jobs
            self._changed.notify()
        return jobs

    @property
    def load(self) -> tuple[int, int]:
        """Requests that are being written, and that wait."""
        return len(self._running), len(self._waiting)

    def close(self) -> None:
        """End after the step that is under way. Listeners of responses without an end get Stopping."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        torch.set_grad_enabled(False)  # of this thread
        batch: ContinuousBatch | None = None
        choice: ChoiceBySettings | None = None
        weights: FoldedWeights | None = None
        while self._wait():
            try:
                if choice is None:
                    choice = ChoiceBySettings(self.decoding, self.rows, next(self.net.parameters()).device)
                if self.reason:
                    self._write_by_transformers(choice)
                    continue
                weights = weights or FoldedWeights(self.net, self.decoding.known_ids)
                batch = batch or ContinuousBatch(weights, choice, self.context + 1)
                self._step(batch, choice)
            except Exception as error:  # out of memory, for example: those that are written fail, later ones may not
                log.exception("a step of generation failed") if log.isEnabledFor(logging.DEBUG) else log.error(
                    f"a step of generation failed ({type(error).__name__}: {' '.join(str(error).split())[:300]})"
                )
                self._fail(error)
                batch = choice = None
        self._fail(Stopping())

    def _wait(self) -> bool:
        """Sleep until there is work. False after `close`."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._waiting or self._running)
            return not self._closed

    def _take(self, most: int) -> list[tuple[int, Request]]:
        """Move jobs of the next pass from the waiting to the running ones."""
        with self._changed:
            jobs: dict[int, Job] = {}
            while self._waiting and len(jobs) < most:
                job = self._waiting.popleft()
                if not job.cancelled.is_set():
                    self._number += 1
                    jobs[self._number] = job
            if not jobs:
                return []
            asked = deque((number, job.request) for number, job in jobs.items())
            taken = next_prompts(asked, most)
            self._waiting.extendleft(jobs[number] for number, _ in reversed(asked))
            self._running |= {number: jobs[number] for number, _ in taken}
            return taken

    def _step(self, batch: ContinuousBatch, choice: ChoiceBySettings) -> None:
        """Add requests or write a token of each, hand the tokens on, and free the rows that ended."""
        for row in batch.rows:
            if self._running[row.number].cancelled.is_set():
                choice.cancel(row.slot)
        batch.remove(self._ended(batch, choice))
        # A few rows are worth a pass: who waits is a person. `has_room` alone would wait for one row in eight
        if batch.free and (asked := self._take(len(batch.free))):
            before = len(batch.rows)
            batch.add(asked)
        elif batch.rows:
            before = 0
            batch.step()
        else:
            return
        for row, token in zip(batch.rows[before:], batch.following[before:].tolist(), strict=True):
            self._tell(row.number, [token])
        batch.remove(self._ended(batch, choice))

    def _ended(self, batch: ContinuousBatch, choice: ChoiceBySettings) -> list[int]:
        """The rows that ended; their listeners are told."""
        gone = batch.ended()
        for row in (batch.rows[k] for k in gone):
            self._end(row.number, choice.written(row.slot))
        return gone

    def _write_by_transformers(self, choice: ChoiceBySettings) -> None:
        """Write the requests that wait as one batch; later ones wait for its end."""
        if not (asked := self._take(self.rows)):
            return
        numbers = [number for number, _ in asked]

        def after_token() -> bool:
            for slot, number in enumerate(numbers):
                if (job := self._running.get(number)) is None:
                    continue
                if job.cancelled.is_set():
                    choice.cancel(slot)
                written = choice.written(slot)
                self._tell(number, written.ids[job.told :])
                if choice.ended[slot]:
                    self._end(number, written)
            return self._closed or not any(number in self._running for number in numbers)

        generate_batch(self.net, choice, [one for _, one in asked], self.tokenizer.end_id, after_token)

    def _tell(self, number: int, tokens: Sequence[int]) -> None:
        job = self._running[number]
        if tokens and not job.cancelled.is_set():
            job.told += len(tokens)
            job.listener(tokens, None)

    def _end(self, number: int, end: End) -> None:
        job = self._running.pop(number)
        if not job.cancelled.is_set():
            job.listener([], end)

    def _fail(self, error: Exception) -> None:
        """End all that is being written, and at `close` all that waits."""
        with self._changed:
            if self._closed:
                self._running |= {-k: job for k, job in enumerate(self._waiting, 1)}
                self._waiting.clear()
        for number in list(self._running):
            self._end(number, error)
