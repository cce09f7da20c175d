"""The file of an evaluation: JSON lines, a header and then each answer as it ends. An evaluation goes on where it was.

A kill can cut the last line only. The file is locked while it is written, and no line is ever changed.
"""

import fcntl
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from disk import disk_errors
from errors import UserError

log = logging.getLogger("thinkwright")
FORMAT = 1  # raise it if a field is removed or changes its meaning
KIND = "evaluation"
Key = tuple[str, int]  # id of a question, number of the sample from 0


class Answers:
    """The answers of one model to one task, each a JSON object with `id` and `sample`.

    `header` is what decides the answers; `lines` are the numbers of their lines, from 1.
    """

    def __init__(self, path: Path, header: Mapping[str, Any]) -> None:
        self.path, self.header = path, dict(header)
        self.answers: dict[Key, dict[str, Any]] = {}
        self.lines: dict[Key, int] = {}
        self._line = 1  # the last one that is taken: the header's

    def keep(self, answer: Mapping[str, Any]) -> None:
        """Add the answer of the next line."""
        self._line += 1
        key = answer["id"], answer["sample"]
        self.answers[key], self.lines[key] = dict(answer), self._line


def read_answers(path: Path, setting: str) -> Answers:
    """Return the answers in a file. Raise UserError as `parse_answers`; a last line that was cut off is left out."""
    header, answers, _ = parse_answers(path, setting)
    if header is None:
        raise UserError(setting, path, "holds no answers", "give the .jsonl file of an evaluation")
    found = Answers(path, header)
    for answer in answers:
        found.keep(answer)
    return found


class AnswerFile(Answers):
    """Answers with their file, open for more. A file with another header is refused, and so is one that is being
    written by another process."""

    def __init__(self, path: Path, header: Mapping[str, Any], setting: str = "--to") -> None:
        super().__init__(path, {KIND: FORMAT, **json.loads(json.dumps(header))})
        self.setting = setting
        with disk_errors(setting, path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a+b", buffering=0)  # a buffer would be written again when the file is closed
        try:
            self._lock()
            self._read()
        except BaseException:
            self._file.close()
            raise

    def add(self, answer: Mapping[str, Any]) -> None:
        """Append an answer. Raise UserError if the disk cannot take it."""
        self._append(answer)
        self.keep(answer)

    def close(self) -> None:
        """Free the file for other processes."""
        self._file.close()

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fix = "wait until it ends, or give another file with --to"
            raise UserError(self.setting, self.path, "is being written by another process", fix) from None
        except OSError:
            pass  # a file system without locks

    def _read(self) -> None:
        header, answers, cut = parse_answers(self.path, self.setting)
        if cut:
            with disk_errors(self.setting, self.path):
                self._file.truncate(self.path.stat().st_size - cut)
            log.warning(f"warning: the last line of {self.path} was cut off; it is dropped and answered again")
        if header is None:
            self._append(self.header)
            return
        if header != self.header:
            name = next(key for key in {**self.header, **header} if header.get(key) != self.header.get(key))
            there, here = (_shown(one.get(name)) for one in (header, self.header))
            problem = f"holds answers with another {name} ({there}, and now {here})"
            raise UserError(self.setting, self.path, problem, "give another file, or the same settings")
        for answer in answers:
            self.keep(answer)

    def _append(self, value: Mapping[str, Any]) -> None:
        line = json.dumps(value, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"
        with disk_errors(self.setting, self.path):
            while line:  # a disk that is nearly full takes a part
                line = line[self._file.write(line) :]


def parse_answers(path: Path, setting: str) -> tuple[dict[str, Any] | None, list[dict[str, Any]], int]:
    """Return the header (None in an empty file), the answers, and the bytes of a last line that was cut off.

    Raise UserError for a file that cannot be read or is no file of an evaluation, and for a damaged line.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        fix = "give the .jsonl file of an evaluation"
        raise UserError(setting, path, f"cannot be read ({error.strerror})", fix) from error
    *lines, rest = data.split(b"\n")
    header: dict[str, Any] | None = None
    answers = []
    for number, line in enumerate(lines, 1):
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            value = None
        if number == 1:
            if not isinstance(value, dict) or value.get(KIND) != FORMAT:
                raise UserError(setting, path, "is not the file of an evaluation", "give another file")
            header = value
        elif not isinstance(value, dict) or not {"id", "sample", "right"} <= value.keys():
            raise UserError(setting, path, f"is damaged in line {number}", "delete this line, and start again")
        else:
            answers.append(value)
    return header, answers, len(rest)


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}…"
