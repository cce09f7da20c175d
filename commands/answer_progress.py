"""The progress of an evaluation: answers, tokens a second and the time left. A file gets a line every half minute."""

import sys
import time
from datetime import timedelta
from typing import Any

from tqdm import tqdm

from lightning_modules.run.progress import COLUMNS, EVERY, REFRESH


class AnswerProgress:
    """Called with the answers that ended and the tokens that were written, as `generate` does."""

    def __init__(self, name: str, total: int, there: int) -> None:
        self.name, self.total, self.there = name, total, there
        self._terminal = sys.stderr.isatty()
        self._began = self._shown = time.monotonic()
        self._bar: tqdm[Any] | None = None

    def __call__(self, ended: int, tokens: int) -> None:
        now = time.monotonic()
        if now - self._shown < (REFRESH if self._terminal else EVERY):
            return
        self._shown = now
        text = self.line(ended, tokens, now - self._began)
        if not self._terminal:
            print(text, file=sys.stderr, flush=True)
            return
        if self._bar is None:
            self._bar = tqdm(bar_format="{desc}  |{bar}|", ncols=COLUMNS, leave=False, file=sys.stderr)
        self._bar.n, self._bar.total = self.there + ended, self.total
        self._bar.set_description_str(text)

    def line(self, ended: int, tokens: int, seconds: float) -> str:
        """Return the progress after some seconds in one line."""
        done = self.there + ended
        parts = [self.name, f"answer {done:,}/{self.total:,}", f"{tokens / max(seconds, 1e-9):,.0f} tokens/s"]
        if ended:
            left = timedelta(seconds=round(seconds / ended * (self.total - done)))
            parts.append(f"{left} left")
        return "  ".join(parts)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
