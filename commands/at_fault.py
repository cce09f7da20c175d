"""The setting whose path an error of the disk comes from."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from commands.preflight import config_files, options
from disk import FULL
from errors import UserError


def path_error(error: OSError, args: Sequence[str]) -> UserError | None:
    """Return the error as one line about the setting whose path it comes from: that file, or a folder above it.

    `args` are the arguments of the command; a config among them gives settings, too. None if no setting has that path.
    """
    place = os.path.abspath(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else ""
    found = [(key, text) for key, text in _texts(args) if place and _holds(text, place)]
    if not found:
        return None
    key, text = max(found, key=lambda one: len(one[1]))
    reason = error.strerror or type(error).__name__
    return UserError(key, text, f"cannot be opened ({reason}: {error.filename})", "give a path that can be opened")


def output_error(error: OSError) -> UserError | None:
    """Return the error of a full disk under the standard output, or None for another error."""
    if error.errno not in FULL or error.filename is not None:
        return None
    return UserError("output", None, "cannot be written: the disk is full", "free some space, or write to another disk")


def _holds(text: str, place: str) -> bool:
    path = os.path.abspath(os.path.expanduser(text)) if text.strip() and "\0" not in text else ""
    return path not in ("", "/") and (place == path or place.startswith(f"{path}/"))


def _texts(args: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The texts of all settings on the command line and in the configs. An option of one command has its dashes."""
    for key, text in options(args):
        yield key if "." in key else f"--{key}", text
    from commands.yaml_files import load_yaml  # not above: a wrong command says what to install without any package

    for name in config_files(args):
        with suppress(OSError, ValueError):
            yield from _leaves("", load_yaml(Path(name).read_text(encoding="utf-8")))


def _leaves(key: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _leaves(f"{key}.{name}".removeprefix("."), inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _leaves(key, inner)
    elif isinstance(value, str):
        yield key, value
