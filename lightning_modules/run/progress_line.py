"""The one line of progress of a command: a bar on a terminal; in a file a line every half minute."""

import sys
import time
from datetime import timedelta
from typing import Any

from tqdm import tqdm

COLUMNS = 80
REFRESH = 0.2  # seconds between two drawings on a terminal
EVERY = 30.0  # seconds between two lines in a file


class ProgressLine:
    """Written to stderr, at most every few moments."""

    def __init__(self) -> None:
        self._bar: tqdm[Any] | None = None
        self._shown = time.monotonic()

    def is_due(self) -> bool:
        """Ask before a text is made: that may take time."""
        return time.monotonic() - self._shown >= (REFRESH if sys.stderr.isatty() else EVERY)

    def show(self, text: str, done: float, total: float) -> None:
        self._shown = time.monotonic()
        if not sys.stderr.isatty():
            print(text, file=sys.stderr, flush=True)
            return
        if self._bar is None:
            self._bar = tqdm(bar_format="{desc}  |{bar}|", ncols=COLUMNS, leave=False, file=sys.stderr)
        self._bar.n, self._bar.total = done, total
        self._bar.set_description_str(text)

    def close(self) -> None:
        """Remove the bar from the terminal."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class AnswerProgress:
    """The progress of answers, for `generate`.

    doing: what is being done; total: answers in the end; longest: most tokens of an answer
    there: answers that were there before, of `total`
    """

    def __init__(self, doing: str, total: int, longest: int, line: ProgressLine, there: int = 0) -> None:
        self.doing, self.total, self.longest, self.line, self.there = doing, total, longest, line, there
        self.began: tuple[float, int] | None = None  # when the first tokens were written, and how many these were

    def __call__(self, ended: int, tokens: int) -> None:
        """Show the line, if it is due. ended: answers that ended; tokens: written for these and the others."""
        if self.began is None:
            self.began = time.monotonic(), tokens
        if not self.line.is_due():
            return
        seconds, new = time.monotonic() - self.began[0], tokens - self.began[1]
        text = f"{self.doing}: {self.there + ended:,}/{self.total:,} answers"
        left = tokens_left(ended, self.total - self.there, tokens, self.longest)
        if new and seconds:
            text += f", {new / seconds:,.0f} tokens/s, {timedelta(seconds=round(left * seconds / new))} left"
        self.line.show(text, tokens, tokens + left)


def tokens_left(ended: int, total: int, tokens: int, longest: int) -> float:
    """Return about how many tokens are still to be written.

    An answer is taken to end after each of its tokens with the same probability, which is `ended` of `tokens`, so an
    answer that is being written is as far from its end as one that waits. None is longer than `longest`.
    """
    mean = min(longest, tokens / ended) if ended else longest
    return max(0.0, min((total - ended) * mean, total * longest - tokens))
