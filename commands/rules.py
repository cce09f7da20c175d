"""Rules for the values of settings: the ends of numbers, the length and the characters of texts."""

import math
import re
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

MANY = 2**31 - 1  # the highest number of rows, steps and the like
LONGEST_NAME, LONGEST_PATH = 255, 4095  # bytes, in Linux


class Rule(Protocol):
    """What a setting takes."""

    def problem(self, value: Any) -> str | None:
        """What is wrong with a value of the right type, or None."""

    def fix(self) -> str:
        """What to give instead."""


@dataclass(frozen=True)
class Number:
    """Numbers from `least` to `most`, and those in `also`. `least` itself is not one of them if it is to be `above`
    it, and `most` is not if it is to be `below`. `instead` ends the message."""

    least: float = 1
    most: float = MANY
    above: bool = False
    below: bool = False
    also: tuple[Any, ...] = ()
    instead: str = ""

    def problem(self, value: Any) -> str | None:
        if isinstance(value, bool) or value in self.also:
            return None
        if math.isnan(value):
            return "is not a number"
        if value < self.least or (self.above and value == self.least):
            return f"is not above {self.least:,}" if self.above else f"is below {self.least:,}"
        if value > self.most or (self.below and value == self.most):
            return f"is not below {self.most:,}" if self.below else f"is above {self.most:,}"
        return None

    def fix(self) -> str:
        if self.most == MANY:
            text = f"{self.least:,} or more"
        else:
            lower = f"a number {'above' if self.above else 'from'} {self.least:,}"
            upper = "below" if self.below else "at most"
            text = f"{lower} {'and ' + upper if self.above or self.below else 'to'} {self.most:,}"
        return f"give {text}{f', or {self.instead}' if self.instead else ''}"


@dataclass(frozen=True)
class CountOrShare:
    """A whole number of batches, or a share above 0 and at most 1. With `zero` also 0."""

    zero: bool = False

    def problem(self, value: Any) -> str | None:
        share = isinstance(value, float)
        if math.isnan(value):
            return "is not a number"
        if value == 0 and not self.zero:
            return "leaves no batch"
        return "is above 1" if share and value > 1 else Number(0).problem(value)

    def fix(self) -> str:
        zero = "0, " if self.zero else ""
        return f"give {zero}a whole number of batches, or a share up to 1.0, which is all of them"


@dataclass(frozen=True)
class Duration:
    """A time: 00:12:00:00 (days, hours, minutes, seconds) or {hours: 12}; another `number` follows its own rule."""

    number: CountOrShare | None = None

    def problem(self, value: Any) -> str | None:
        if self.number is not None and isinstance(value, int | float):
            return self.number.problem(value)
        if isinstance(value, str):
            found = re.fullmatch(r"(\d{1,6}):(\d\d):(\d\d):(\d\d)", value)
            if found is None:
                return "is not a time"
            value = dict(zip(("days", "hours", "minutes", "seconds"), map(int, found.groups()), strict=True))
        try:
            seconds = (value if isinstance(value, timedelta) else timedelta(**dict(value))).total_seconds()
        except (TypeError, OverflowError):
            return "is not a time"
        return None if seconds > 0 else "is no time"

    def fix(self) -> str:
        text = "give days:hours:minutes:seconds, like 00:12:00:00, or {hours: 12}"
        return text if self.number is None else f"{text}, or {self.number.fix().removeprefix('give ')}"


@dataclass(frozen=True)
class Text:
    """A text of at most `most` characters. With `lines` it may have line breaks, and with `empty` no character."""

    most: int = 200
    lines: bool = False
    empty: bool = False

    def problem(self, value: Any) -> str | None:
        text = str(value)
        if not text.strip() and not self.empty:
            return "is empty"
        if len(text) > self.most:
            return f"has more than {self.most:,} characters"
        odd = r"[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]" if self.lines else r"[\x00-\x1f\x7f\ud800-\udfff]"
        return "has a control character" if re.search(odd, text) else None

    def fix(self) -> str:
        return f"give a text of {'at most' if self.empty else '1 to'} {self.most:,} characters"


@dataclass(frozen=True)
class FilePath:
    """A path, a glob, an address on the hub: its parts are as long as names of files may be."""

    def problem(self, value: Any) -> str | None:
        text = str(value)
        if problem := Text(LONGEST_PATH).problem(text):
            return problem
        if len(text.encode()) > LONGEST_PATH:
            return f"has more than {LONGEST_PATH:,} bytes"
        if any(len(part.encode()) > LONGEST_NAME for part in text.split("/")):
            return f"has a part of more than {LONGEST_NAME} bytes"
        try:
            Path(text).expanduser()
        except RuntimeError:
            return "begins with the home folder of an unknown user"
        return None

    def fix(self) -> str:
        return "give a path that a file can have"


@dataclass(frozen=True)
class Name:
    """A name of one folder, or of several with slashes between them."""

    def problem(self, value: Any) -> str | None:
        if problem := FilePath().problem(value):
            return problem
        outside = any(part.strip() in ("", ".", "..") for part in value.split("/")) or value.startswith("~")
        return "leaves run.root, or has an empty part" if outside else None

    def fix(self) -> str:
        return "give a name like demo or qwen/lr-1e-4"


@dataclass(frozen=True)
class Each:
    """A list in which each item follows `rule`. Without `empty` it has one item or more. A text is no list."""

    rule: Rule
    empty: bool = False

    def problem(self, value: Any) -> str | None:
        if isinstance(value, str):
            return None
        if not value and not self.empty:
            return "is empty"
        return next((f"has an item that {why}" for one in value if (why := self.rule.problem(one))), None)

    def fix(self) -> str:
        return f"{self.rule.fix()}{'' if self.empty else ', once or more'}"


@dataclass(frozen=True)
class Fields:
    """A group whose texts, also in lists, each follow `rule`."""

    rule: Rule

    def problem(self, value: Any) -> str | None:
        texts = [one for given in vars(value).values() for one in (given if isinstance(given, list) else [given])]
        return Each(self.rule, empty=True).problem([one for one in texts if isinstance(one, str)])

    def fix(self) -> str:
        return self.rule.fix()


@dataclass(frozen=True)
class Devices:
    """The number of devices as a number or a text, their indices, or all of them."""

    def problem(self, value: Any) -> str | None:
        if isinstance(value, list):
            return Each(Number(0, 1023)).problem(value)
        text = str(value)
        if re.fullmatch(r"-?\d{1,30}", text):
            return Number(1, 1024, also=(-1,)).problem(int(text))
        return None if re.fullmatch(r"auto|\d+(,\d+)*,?", text) else "is not a number of devices"

    def fix(self) -> str:
        return "give a number from 1 to 1,024, indices like [0, 1], or auto"


@dataclass(frozen=True)
class Choice:
    """One of some words."""

    words: tuple[str, ...]

    def problem(self, value: Any) -> str | None:
        return None if not isinstance(value, str) or value in self.words else f"is not {' or '.join(self.words)}"

    def fix(self) -> str:
        return f"give {' or '.join(self.words)}"


@dataclass(frozen=True)
class FileSize:
    """The size of a file with its unit, like 2GB."""

    def problem(self, value: Any) -> str | None:
        found = re.fullmatch(r"(\d{1,6}(?:\.\d{1,3})?)(KB|MB|GB|TB)", str(value))
        return None if found and float(found[1]) > 0 else "is no size"

    def fix(self) -> str:
        return "give a number and its unit, like 500MB or 2GB"
