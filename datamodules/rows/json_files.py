"""Rows of JSON lines, and of a JSON array.

Each line or item has to be a JSON object. Otherwise UserError names the file and the place. A large file of lines is
read in blocks, so that a sample needs no pass over the whole file.
"""

import io
import json
import re
import sys
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import accumulate, count
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.rows.pieces import Piece, Row, Unit
from datamodules.rows.text_files import LONGEST_ROW, SETTING, TOO_LONG, is_compressed, open_bytes, open_text
from errors import UserError

READ_CHARACTERS = 1 << 20  # characters of a JSON array read at once
BLOCK = 1 << 18  # bytes of a block of lines
ONE_UNIT = 1 << 25  # bytes of a file of lines that is read as one unit
BOM = b"\xef\xbb\xbf"
KEY_TWICE = "a key twice in one JSON object (the last value is read)"


def json_units(path: Path, label: str) -> list[Unit]:
    """The units of a file of JSON lines or, if it is a .json file that begins with a bracket, of an array."""
    size = path.stat().st_size
    if ".jsonl" not in path.suffixes:
        with open_text(path) as text:
            array = text.read(1 << 12).lstrip().startswith("[")
        if array:
            return [Unit(size, lambda: _array(path), lambda piece, _: [piece.content], label=label)]
    if size <= ONE_UNIT or is_compressed(path):
        blocks = [_Block(path, 0, sys.maxsize, LineCounts(path))]
    else:
        counts = LineCounts(path)
        blocks = [_Block(path, start, start + BLOCK, counts) for start in range(0, size, BLOCK)]
    each = min(size, BLOCK) if len(blocks) > 1 else size
    return [Unit(each, block.pieces, block.rows, lambda block=block: block.first, label) for block in blocks]  # type: ignore[misc]


class LineCounts:
    """The number of line ends before each block of a file, counted when the first of them is asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def before(self) -> list[int]:
        counts = []
        with self.path.open("rb") as file:
            while block := file.read(BLOCK):
                counts.append(int(np.count_nonzero(np.frombuffer(block, np.uint8) == ord("\n"))))
        return list(accumulate(counts, initial=0))


class _Block:
    """The lines of a file that begin in the bytes [start, stop)."""

    def __init__(self, path: Path, start: int, stop: int, counts: LineCounts) -> None:
        self.path, self.start, self.stop, self.counts = path, start, stop, counts

    @cached_property
    def first(self) -> int:
        """The number of lines before the first one."""
        if not self.start:
            return 0
        with self.path.open("rb") as file:
            file.seek(self.start - 1)
            return self.counts.before[self.start // BLOCK] + (file.read(1) != b"\n")

    def pieces(self) -> Iterator[Piece]:
        """Each line that is not empty."""
        with open_bytes(self.path) as file:
            at = 0
            if self.start:
                file.seek(self.start - 1)
                at = self.start - 1
                while part := file.readline(BLOCK):  # the end of a line that began in another block
                    at += len(part)
                    if part.endswith(b"\n"):
                        break
            for number in count():
                if at >= self.stop or not (line := file.readline(LONGEST_ROW + 1)):
                    return
                at += len(line)
                if len(line) > LONGEST_ROW:
                    name = f"line {self.first + number + 1}"
                    raise UserError(SETTING, self.path, f"cannot be read: {name} {TOO_LONG}", "fix or remove it")
                if number == 0 and not self.start:
                    line = line.removeprefix(BOM)
                if line.strip():
                    yield Piece(number, line, sys.getsizeof(line))

    def rows(self, piece: Piece, _: Sequence[int]) -> Iterator[tuple[Row, str]]:
        """The row of a line. Bytes that are not UTF-8 become lone surrogates, so that only this row is dropped."""
        decoder = _Decoder()
        try:
            row = decoder.decode(piece.content.decode("utf-8", "surrogateescape").rstrip())
        except json.JSONDecodeError as error:
            why = f"{error.msg.removesuffix(' at')} at column {error.colno}"
            raise _not_json(self.path, f"line {self.first + piece.at + 1}", why) from error
        except (ValueError, RecursionError) as error:  # thousands of digits or brackets
            raise _not_json(self.path, f"line {self.first + piece.at + 1}", str(error)) from error
        if not isinstance(row, dict):
            raise _not_json(self.path, f"line {self.first + piece.at + 1}", f"it is {type(row).__name__}")
        yield row, decoder.note()


class _Decoder(json.JSONDecoder):
    """Notes a key that an object has twice. JSON has no rule for it, and Python takes the last value."""

    def __init__(self) -> None:
        super().__init__(object_pairs_hook=self._object)
        self.twice = False

    def _object(self, pairs: list[tuple[str, Any]]) -> Row:
        row = dict(pairs)
        self.twice |= len(row) < len(pairs)
        return row

    def note(self) -> str:
        """The note of the objects decoded since the last call."""
        twice, self.twice = self.twice, False
        return KEY_TWICE if twice else ""


def _array(path: Path) -> Iterator[Piece]:
    with open_text(path) as text:
        yield from array_pieces(path, text)


def array_pieces(path: Path, text: io.TextIOWrapper) -> Iterator[Piece]:
    """The rows of an array, each with its note. Memory grows with the longest object, not with the file."""
    decoder = _Decoder()
    between = re.compile(r"[\s,]*")
    buffer, at, number = text.read(READ_CHARACTERS).lstrip()[1:], 0, 1
    while True:
        at = between.match(buffer, at).end()  # type: ignore[union-attr]  # always matches, at least the empty string
        if buffer.startswith("]", at):
            if (buffer[at + 1 :] + text.read(READ_CHARACTERS)).strip():
                problem = f"cannot be read: text follows the end of the array, after object {number - 1}"
                raise UserError(SETTING, path, problem, "put all rows into one array, or write one object per line")
            return
        start = at
        try:
            row, at = decoder.raw_decode(buffer, at)
        except json.JSONDecodeError as error:
            # Either the JSON is wrong, or more text has to be read. In the second case the decoder stopped at the end
            # of the buffer or at the beginning of an unterminated string.
            unfinished = error.pos > len(buffer) - 16 or error.msg.startswith("Unterminated string")
            if unfinished and len(buffer) - at > LONGEST_ROW:
                problem = f"cannot be read: object {number} {TOO_LONG}"
                raise UserError(SETTING, path, problem, "fix or remove it") from None
            more = text.read(max(READ_CHARACTERS, len(buffer))) if unfinished else ""
            if not more:
                why = "the array does not end" if unfinished else error.msg
                raise _not_json(path, f"object {number}", why) from error
            buffer, at = buffer[at:] + more, 0
            continue
        except (ValueError, RecursionError) as error:
            raise _not_json(path, f"object {number}", str(error)) from error
        if not isinstance(row, dict):
            raise _not_json(path, f"object {number}", f"it is {type(row).__name__}")
        yield Piece(number - 1, (row, decoder.note()), 2 * (at - start) + 1_000)
        number += 1


def _not_json(path: Path, place: str, why: str) -> UserError:
    return UserError(SETTING, path, f"cannot be read: {place} is not a JSON object ({why[:160]})", "fix or remove it")
