"""Which classes a config may name: their modules are checked before anything is imported."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from commands.settings import Setting
from commands.yaml_files import load_yaml
from errors import UserError

KNOWN = (
    "lightning", "torch", "torchmetrics",
    "benchmarks", "commands", "datamodules", "lightning_modules", "tests",  # this project's
)  # fmt: skip
IMPORT_PATH = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)+")


def check_class_paths(settings: Mapping[str, Setting], given: Sequence[tuple[str, Any, bool]]) -> None:
    """Raise UserError if a value in `given` (key, value, whether from the command line) names a class of a module that
    is neither known nor allowed. `--allow_modules` counts on the command line only: a config may be a stranger's."""
    allowed = list(KNOWN)
    for key, value, typed in given:
        if key == "allow_modules" and typed:
            allowed += re.findall(r"\w+", str(value))
        elif key == "allow_modules" and value:
            raise UserError(key, value, "stands in a config, which may be a stranger's", "give it on the command line")
    for key, value, _ in given:
        parents = [key[: dot.start()] for dot in re.finditer(r"\.", key)]
        if not any(one in settings and settings[one].names_class for one in (*parents, key)):
            continue
        for text in _texts(value):
            root = text.partition(".")[0]
            if IMPORT_PATH.fullmatch(text) and root not in allowed and find_spec(root) is not None:
                raise UserError(key, text, f"would import the module {root}", f"add --allow_modules {root} to allow it")


def is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except (OSError, ValueError):  # too long, or with a character that no path has
        return False


def _texts(value: Any) -> Iterator[str]:
    """All texts in a value, also inside YAML that the command line or a named file holds."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from _texts(one)
    elif isinstance(value, str):
        yield value
        inner: Any = value
        with suppress(OSError, ValueError):
            inner = load_yaml(Path(value).read_text(encoding="utf-8") if is_file(value) else value)
        if isinstance(inner, Mapping | list):
            yield from _texts(inner)
