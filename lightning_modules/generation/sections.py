"""The sections of a response, thoughts and answer, while it is being written.

The pieces of a section, joined, are its text without the white space around it, so a response that is streamed and
one that is not have the same texts.
"""

from collections.abc import Sequence
from typing import NamedTuple

from datamodules.tokens.tokenizer import ThinkTokenizer

ANSWER = 0  # the number of the answer; thoughts have the numbers from 1
HELD = 16  # most tokens that wait for the rest of a character: each may end within one
BROKEN = "\ufffd"  # what decoding shows for a part of a character


class Piece(NamedTuple):
    """A part of a section."""

    section: int  # ANSWER, or the number of a thought
    text: str
    closed: bool = False  # the last piece of a thought that was closed; it may have no text


class SectionReader:
    """Reads the tokens of a response one by one. The answer is all text outside of thoughts.

    opened: the prompt ended within a thought
    stop:   texts that end the answer, and are no part of it. In a thought they are text
    """

    def __init__(
        self, tokenizer: ThinkTokenizer, end_ids: Sequence[int], opened: bool = False, stop: Sequence[str] = ()
    ) -> None:
        self.tokenizer, self.end_ids, self.stop = tokenizer, frozenset(end_ids), [one for one in stop if one]
        self.thoughts = int(opened)  # that were opened
        self.section = int(opened)
        self.stopped = False  # a stop text was written
        self.tokens = 0  # with tags and the end token
        self.thinking_tokens = 0  # without tags
        self._ids: list[int] = []  # that are not decoded yet
        # By section: text that may be white space at its end, or the beginning of a stop text
        self._held: dict[int, str] = {}
        self._shown: dict[int, bool] = {}  # the sections that have text

    def read(self, token: int) -> list[Piece]:
        """Return the pieces that a token completes."""
        self.tokens += 1
        if self.stopped or token in self.end_ids:
            return []
        if token == self.tokenizer.open_id:
            pieces = self._leave()
            self.thoughts += 1
            self.section = self.thoughts
            return pieces
        if token == self.tokenizer.close_id:
            pieces = self._leave()
            self.section = ANSWER
            return pieces
        self.thinking_tokens += self.section != ANSWER
        self._ids.append(token)
        text = self.tokenizer.decode(self._ids)
        if text.endswith(BROKEN) and len(self._ids) < HELD:
            return []
        self._ids = []
        return self._show(text)

    def end(self) -> list[Piece]:
        """Return the last pieces, after the last token. A thought that is open stays without `closed`."""
        return self._rest()

    def _show(self, text: str) -> list[Piece]:
        text = self._held.pop(self.section, "") + text
        if not self._shown.get(self.section):
            text = text.lstrip()
        stop = self.stop if self.section == ANSWER else []
        # The stop text that is complete first, whatever the tokens are
        if found := [(k + len(one), k) for one in stop if (k := text.find(one)) >= 0]:
            self.stopped = True
            return self._piece(text[: min(found)[1]].rstrip())
        kept = max((n for one in stop for n in range(1, len(one)) if text.endswith(one[:n])), default=0)
        shown = text[: len(text) - kept].rstrip()
        self._held[self.section] = text[len(shown) :]
        return self._piece(shown)

    def _leave(self) -> list[Piece]:
        """The end of a section: the rest of its text, and for a thought that it is closed."""
        pieces = self._rest()
        return [*pieces, Piece(self.section, "", True)] if self.section != ANSWER else pieces

    def _rest(self) -> list[Piece]:
        text, self._ids = self.tokenizer.decode(self._ids) if self._ids else "", []
        pieces = self._show(text) if text and not self.stopped else []
        # What may have been the beginning of a stop text is none. White space may yet be within the answer
        held = self._held.pop(self.section, "")
        rest = held.rstrip()
        self._held[self.section] = held[len(rest) :]
        return [*pieces, *self._piece(rest)]

    def _piece(self, text: str) -> list[Piece]:
        if not text:
            return []
        self._shown[self.section] = True
        return [Piece(self.section, text)]
