"""UserError, the exception for mistakes that a user can correct, and parts of its messages."""

import difflib
from collections.abc import Iterable

from visible import visible

LONGEST = 200  # characters of a value that a message shows
PROGRAMS = ("python", "pip", "hf", "git", "make", "srun")  # a way out that begins with a command is not capitalized
INTERRUPTED, TERMINATED = 130, 143  # exit codes: 128 + the number of the signal


class UserError(Exception):
    """Wrong input. Its text has the setting, the value, the problem and the way out. `cli.main` prints it and exits 2.

    `UserError("data.source", "rows.csv", "has no known format", "give .parquet, .jsonl or .json")` reads
    `data.source: 'rows.csv' has no known format. Give .parquet, .jsonl or .json.`
    """

    def __init__(self, key: str, value: object, problem: str, fix: str) -> None:
        self.key = key
        shown = f"{_shortened(str(value))!r} " if value is not None else ""
        stop = "" if fix.endswith("?") else "."
        first = fix.split(" ", 1)[0]
        if first.rstrip(",:").isalpha() and first not in PROGRAMS:
            fix = fix[:1].upper() + fix[1:]
        super().__init__(visible(f"{key}: {shown}{problem}. {fix}{stop}"))


def _shortened(text: str) -> str:
    """The beginning and the end of a text that is longer than a line or two."""
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]}…{text[-LONGEST // 4 :]}"


def in_line(names: Iterable[str], most: int) -> str:
    """Return the first names in one line, at most `most`, and the number of the others."""
    known = list(names)
    more = f" and {len(known) - most} more" if len(known) > most else ""
    return ", ".join(known[:most]) + more


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """Return the most similar known word, compared as a whole or by its last dotted part, or None."""
    known = list(known)
    if match := difflib.get_close_matches(word, known, n=1, cutoff=0.6):
        return match[0]
    by_leaf = {option.rsplit(".", 1)[-1]: option for option in known}
    match = difflib.get_close_matches(word.rsplit(".", 1)[-1], list(by_leaf), n=1, cutoff=0.75)
    return by_leaf[match[0]] if match else None


def suggest(word: str, known: Iterable[str], otherwise: str) -> str:
    """Return the way out of a wrong word: the most similar known word, as a question, or `otherwise`."""
    near = did_you_mean(word, known)
    return f"did you mean {near}?" if near else otherwise
