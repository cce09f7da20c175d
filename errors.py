"""The one exception for mistakes that a user can mend, and the "did you mean" behind its messages."""

import difflib
from collections.abc import Iterable

INTERRUPTED, TERMINATED = 130, 143  # exit codes: 128 + the signal, as shells count


class UserError(Exception):
    """Bad input. Its text is one sentence with the setting, the value and the way out; `cli.main` prints it, exits 2.

    `UserError("data.source", "rows.csv", "is not a format this reads", "give .parquet, .jsonl or .json")` reads
    `data.source: 'rows.csv' is not a format this reads. Give .parquet, .jsonl or .json.`
    """

    def __init__(self, key: str, value: object, problem: str, fix: str) -> None:
        self.key = key
        shown = f"{str(value)!r} " if value is not None else ""
        stop = "" if fix.endswith("?") else "."
        super().__init__(f"{key}: {shown}{problem}. {fix[:1].upper()}{fix[1:]}{stop}")


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """The known word nearest to this one, if any is near: the whole word, or its last dotted part."""
    known = list(known)
    if match := difflib.get_close_matches(word, known, n=1, cutoff=0.6):
        return match[0]
    by_leaf = {option.rsplit(".", 1)[-1]: option for option in known}
    match = difflib.get_close_matches(word.rsplit(".", 1)[-1], list(by_leaf), n=1, cutoff=0.75)
    return by_leaf[match[0]] if match else None
