"""Figures of a model that was measured before, in one file for each key of everything that decides them.

The first line of a file is the digest of the rest, JSON with the whole key. Who reads it compares the whole key, so two
keys with one name, a damaged file and a file of another program are never taken for figures.
"""

import hashlib
import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from disk import write_file
from lightning_modules.evaluation.think_scores import AnsweredRow
from lightning_modules.generation.think_response import ThinkResponse

FORMAT = 1  # raise it if a field is added, removed or changes its meaning
SIDES = ("written", "reference")

log = logging.getLogger("thinkwright")


@dataclass(frozen=True)
class Measurement:
    """What a measurement of the held-out rows leaves behind."""

    figures: dict[str, float]  # of the table, rounded
    logged: dict[str, float]  # as the loggers get them, with "val/" in their names
    rights: dict[str, bool]  # whether each answered question was answered right
    answered: list[AnsweredRow]  # all of them: samples.md counts them and shows some of each kind
    when: str = ""  # the local time of the measurement, to the minute


class Remembered:
    """The file of one measurement in `folder`; `key` holds plain values: everything that decides the figures."""

    def __init__(self, folder: Path, key: Mapping[str, Any]) -> None:
        self._key = json.loads(json.dumps({**key, "format": FORMAT}, sort_keys=True, default=str))
        name = hashlib.sha256(json.dumps(self._key).encode()).hexdigest()[:16]
        self.path = folder / f"{name}.json"

    def read(self) -> Measurement | None:
        """Return the measurement, or None if there is none. A file that cannot be used is named in one line."""
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            problem = f"cannot be read ({error.strerror or error})"
        else:
            digest, _, rest = data.partition(b"\n")
            if hashlib.sha256(rest).hexdigest().encode() == digest:
                with suppress(KeyError, TypeError, ValueError):
                    content = json.loads(rest)
                    if content.pop("key") == self._key:
                        return Measurement(**content | {"answered": [_answered(one) for one in content["answered"]]})
                problem = "is not the measurement of its name"
            else:
                problem = "is damaged"
        log.warning(f"{self.path} {problem}: measured again")
        return None

    def write(self, measured: Measurement) -> None:
        """Keep a measurement. A folder that cannot be written costs the next fit its time, nothing else."""
        answered = [_plain(one) for one in measured.answered]
        when = f"{datetime.now():%Y-%m-%d %H:%M}"
        content = {**vars(measured), "answered": answered, "when": when, "key": self._key}
        rest = json.dumps(content).encode()
        with suppress(OSError):
            write_file(self.path, hashlib.sha256(rest).hexdigest().encode() + b"\n" + rest)


def _plain(row: AnsweredRow) -> dict[str, Any]:
    known: dict[str, Any] = asdict(row)
    del known["verdict"], known["failures"]  # found again: they follow from the rest
    return known


def _answered(known: dict[str, Any]) -> AnsweredRow:
    sides = {side: ThinkResponse(**known[side] | {"thoughts": tuple(known[side]["thoughts"])}) for side in SIDES}
    return AnsweredRow(**known | sides)
