"""Write settings.json, from which help and refusals come without torch: python -m commands.record

A test fails if the file differs from what the parsers say. Run it after a change of a setting.
"""

import dataclasses
import inspect
import json
import typing
from collections.abc import Iterable
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from types import UnionType
from typing import Any

from jsonargparse import ActionConfigFile  # type: ignore[attr-defined]  # it is exported

from cli import TRAINER
from commands import fit_settings, parsing, which_run
from commands.parsing import Group, Option, Parser
from commands.preflight import COMMANDS
from commands.recorded import FILE, PLAIN, declarations
from commands.settings import NOTHING, Setting
from hub import CHECKOUT

OURS = ("datamodules.", "lightning_modules.")
NAMES = {kind: name for name, kind in PLAIN.items()}


class Writer:
    """Turns parsers into the content of the file."""

    def __init__(self) -> None:
        self.commands: dict[str, Any] = {}
        self.groups: dict[str, Any] = {}
        self.classes: dict[str, Any] = {}
        self.files: set[Path] = set()

    def add(self, parser: Parser) -> None:
        parts = [self._group(part) if isinstance(part, Group) else _option(part) for part in parser.parts]
        shown = {"more": parser.more, "hidden": sorted(parser.hidden), "brief": list(parser.brief)}
        self.commands[parser.command] = shown | {"parts": parts}

    def content(self) -> dict[str, Any]:
        declared = {path.relative_to(CHECKOUT).as_posix(): declarations(path) for path in sorted(self.files)}
        return {
            "lightning": version("lightning"), "declared": declared, "commands": self.commands, "groups": self.groups,
            "classes": dict(sorted(self.classes.items())),
        }  # fmt: skip

    def _group(self, part: Group) -> str:
        name = part.key or part.kind.__name__
        written = {
            "kind": self._class(part.kind, part.skip), "key": part.key, "skip": sorted(part.skip),
            "defaults": {key: self._value(value) for key, value in part.defaults.items()},
            "settings": [self._setting(one) for one in part.settings],
        }  # fmt: skip
        while self.groups.setdefault(name, written) != written:  # another command has other defaults
            name += "'"
        return name

    def _setting(self, one: Setting) -> dict[str, Any]:
        found = {"key": one.key, "hint": self._hint(one.hint), **self._default(one.default), "help": one.help}
        return found | ({"fields": True} if one.fields else {}) | ({"heading": True} if one.heading else {})

    def _default(self, value: Any) -> dict[str, Any]:
        return {} if value is NOTHING else {"default": self._value(value)}

    def _class(self, kind: Any, skip: Iterable[str] = ()) -> str:
        name = f"{kind.__module__}.{kind.__qualname__}"
        if name not in self.classes:
            ours = (one for one in kind.__mro__ if one.__module__.startswith(OURS))
            self.files |= {Path(inspect.getfile(one)) for one in ours}
            self.classes[name] = []
            fields = dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else ()
            made = {one.name: one.default_factory() for one in fields if one.default_factory is not dataclasses.MISSING}
            self.classes[name] = [
                {"name": key, "hint": self._hint(one.annotation), **self._default(made.get(key, one.default))}
                for key, one in inspect.signature(kind).parameters.items()
                if key not in skip
            ]
        return name

    def _hint(self, hint: Any) -> Any:
        origin, args = typing.get_origin(hint), typing.get_args(hint)
        if origin is typing.Literal:
            return ["Literal", *args]
        if origin in (typing.Union, UnionType):
            return ["Union", *map(self._hint, args)]
        if origin is not None:
            return [origin.__name__, *map(self._hint, args)]
        if hint in NAMES:
            return NAMES[hint]
        if dataclasses.is_dataclass(hint):
            return self._class(hint)
        name = f"{hint.__module__}.{hint.__qualname__}"
        self.classes[name] = None  # a config may name a class of this kind
        return name

    def _value(self, value: Any) -> Any:
        if dataclasses.is_dataclass(value):
            fields = {one.name: self._value(getattr(value, one.name)) for one in dataclasses.fields(value)}
            return {"class": self._class(type(value)), "fields": fields}
        return {"tuple": list(value)} if isinstance(value, tuple) else value


def _option(part: Option) -> Any:
    if part.more.get("action") is ActionConfigFile:
        return "config"
    writer = Writer()
    more = {name: writer._hint(value) if name == "type" else value for name, value in part.more.items()}
    return {"names": list(part.names), "help": part.help, "more": more}


def recorded() -> dict[str, Any]:
    """The content that the file should have."""
    writer = Writer()
    writer.files |= {Path(str(one.__file__)) for one in (fit_settings, parsing, which_run)}
    for command in COMMANDS:
        if command in TRAINER:
            writer.add(fit_settings.build_parser(command))
        else:
            module = import_module(f"commands.{command}")
            writer.files.add(Path(str(module.__file__)))
            writer.add(module.build_parser())
    return writer.content()


def as_text(value: Any, depth: int = 0) -> str:
    """JSON with one setting in a line, so that a change of one changes one line."""
    brackets, pad = "{}" if isinstance(value, dict) else "[]", "\n" + " " * (depth + 1)
    if isinstance(value, dict) and depth < 3:
        items = [f"{json.dumps(name)}: {as_text(one, depth + 1)}" for name, one in value.items()]
    elif isinstance(value, list) and any(isinstance(one, dict) for one in value):
        items = [json.dumps(one, ensure_ascii=False) for one in value]
    else:
        return json.dumps(value, ensure_ascii=False)
    return f"{brackets[0]}{pad}{f',{pad}'.join(items)}{pad[:-1]}{brackets[1]}"


if __name__ == "__main__":
    FILE.write_text(as_text(recorded()) + "\n", encoding="utf-8")
    print(FILE)
