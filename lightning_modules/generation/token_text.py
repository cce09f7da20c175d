"""What each token does to a text: whether it breaks a character, leaves one open, or shows something.

A byte-level tokenizer may spell a character in several tokens. The state of a text is the part of a character that is
open at its end; state 0 has none. Tables over states and tokens take the place of decoding, so a batch of any size
costs a few reads.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from datamodules.tokens.tokenizer import ThinkTokenizer

BROKEN = 127  # the debt of a token that breaks a character
# White space of several bytes, for `str.strip`, which decides whether a response is well-formed
_BLANK = [c.encode() for c in map(chr, range(0x80, 0x3001)) if c.isspace()]
# First byte -> first and last value of the second (Unicode 16, table 3-7); others take 80 to BF
_SECOND = {0xE0: (0xA0, 0xBF), 0xED: (0x80, 0x9F), 0xF0: (0x90, 0xBF), 0xF4: (0x80, 0x8F)}


@dataclass(frozen=True, eq=False)
class TokenText:
    """Tables of a tokenizer with V tokens, over S states of a text.

    open:  (S,) int64, bytes that complete the open character
    next:  (S, V) uint8, the state after a token; 0 if the token breaks the open character
    shows: (S, V) bool, whether a token completes a character that is not white space
    debt:  (2 * S, V) int8, most tokens that must follow until the text is complete and shows something; BROKEN for a
           token that breaks a character. Line 2 * state is for a text that shows nothing yet, the following line for
           one that does
    """

    open: Tensor
    next: Tensor
    shows: Tensor
    debt: Tensor

    @staticmethod
    @cache
    def of(tokenizer: ThinkTokenizer) -> "TokenText":
        pieces = _token_bytes(tokenizer)
        automaton = _Automaton()
        tables = _tables(automaton, pieces)
        if not tables._always_goes_on():  # a vocabulary without single bytes: its tokens are whole characters
            whole = [None if piece is None else piece.decode(errors="replace").encode() for piece in pieces]
            tables = _tables(automaton, whole)
        return tables

    def _always_goes_on(self) -> bool:
        """Whether some token brings each state of a text nearer to its end."""
        least = self.debt.amin(1).view(-1, 2)
        return bool((least[1:] <= self.open[1:, None] - 1 + torch.tensor([1, 0])).all()) and int(least[0].max()) == 0


class _Automaton:
    """The states of UTF-8, found from the empty one. A state is the open bytes of a character: those of white space as
    they are, and for all others one example with the same rest."""

    def __init__(self) -> None:
        self.examples = [b""]
        self.steps: list[dict[int, tuple[int, bool]]] = []  # state -> byte -> next state, whether it shows something
        known = {self._kind(b""): 0}
        while len(self.steps) < len(self.examples):
            before, steps = self.examples[len(self.steps)], {}
            for byte in self._following(before):
                after = before + bytes([byte])
                if len(after) == _length(after):
                    steps[byte] = (0, not after.decode().isspace())
                    continue
                if (kind := self._kind(after)) not in known:
                    known[kind] = len(self.examples)
                    self.examples.append(after)
                steps[byte] = (known[kind], False)
            self.steps.append(steps)

    def run(self, state: int, piece: bytes) -> tuple[int, bool] | None:
        """Return the state after some bytes and whether they complete a character that shows; None if they break
        one."""
        shows = False
        for byte in piece:
            if (step := self.steps[state].get(byte)) is None:
                return None
            state, shows = step[0], shows or step[1]
        return state, shows

    @staticmethod
    def _following(before: bytes) -> list[int]:
        if not before:
            return [*range(0x80), *range(0xC2, 0xF5)]
        first, last = _SECOND.get(before[0], (0x80, 0xBF)) if len(before) == 1 else (0x80, 0xBF)
        return list(range(first, last + 1))

    def _kind(self, before: bytes) -> tuple[bytes, int, tuple[int, ...]]:
        blank = any(one.startswith(before) for one in _BLANK)
        return before if blank else b"", _length(before) - len(before), tuple(self._following(before))


def _length(start: bytes) -> int:
    """The bytes of a character, from its first byte; 0 for none."""
    if not start:
        return 0
    return 1 + (start[0] >= 0xC2) + (start[0] >= 0xE0) + (start[0] >= 0xF0)


def _tables(automaton: _Automaton, pieces: list[bytes | None]) -> TokenText:
    states, tokens = len(automaton.examples), len(pieces)
    still_open = torch.tensor([_length(example) - len(example) for example in automaton.examples])
    following, shows = np.zeros((states, tokens), np.uint8), np.zeros((states, tokens), np.bool_)
    broken = np.ones((states, tokens), np.bool_)
    for token, piece in enumerate(pieces):
        if piece is None:
            continue
        try:  # nearly all tokens are whole characters, which break an open one
            text = piece.decode()
            broken[0, token], shows[0, token] = False, bool(text.strip())
        except UnicodeDecodeError:
            for state in range(states):
                if (after := automaton.run(state, piece)) is not None:
                    broken[state, token], (following[state, token], shows[state, token]) = False, after
    next_state, shown = torch.from_numpy(following), torch.from_numpy(shows)
    needed = still_open.to(torch.int8)[next_state.long()]
    debt = torch.stack([needed + ~shown, needed], 1).masked_fill(torch.from_numpy(broken)[:, None], BROKEN)
    return TokenText(still_open, next_state, shown, debt.view(2 * states, tokens))


def _token_bytes(tokenizer: ThinkTokenizer) -> list[bytes | None]:
    """The bytes of each token; None for a number without a token."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    byte_of = {character: byte for byte, character in bytes_to_unicode().items()}
    added = tokenizer.full.added_tokens_decoder
    pieces: list[bytes | None] = []
    for token, name in enumerate(tokenizer.full.convert_ids_to_tokens(range(len(tokenizer)))):
        if name is None or token in added:
            pieces.append(None if name is None else name.encode())
        elif all(character in byte_of for character in name):
            pieces.append(bytes(byte_of[character] for character in name))
        else:
            pieces.append(name.encode())
    return pieces
