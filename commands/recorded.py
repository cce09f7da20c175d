"""The settings of every command, read from settings.json: what the parsers know without torch and Lightning.

commands/record.py wrote the file from the real parsers. Classes with the same fields stand in for the real ones, so
help, errors and ranges come from the same code. What a stand-in cannot decide is `Undecided`: the real parser decides.
"""

import ast
import hashlib
import json
import pathlib
import re
import sys
import typing
from collections.abc import Callable, Iterable, Sequence
from dataclasses import field, make_dataclass
from datetime import timedelta
from functools import reduce
from importlib.metadata import version
from operator import or_
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from jsonargparse import Namespace

from commands.parsing import Group, Parser, is_valid
from commands.preflight import options
from commands.settings import NOTHING, Setting
from hub import CHECKOUT

FILE = CHECKOUT / "commands" / "settings.json"
PLAIN: dict[str, Any] = {
    "int": int, "float": float, "str": str, "bool": bool, "None": type(None), "Any": Any, "dict": dict, "list": list,
    "timedelta": timedelta, "Path": pathlib.Path,
}  # fmt: skip
GENERIC: dict[str, Any] = {"list": list, "tuple": tuple, "dict": dict, "Iterable": Iterable}
STAND_INS = sys.modules.setdefault("stand_ins", ModuleType("stand_ins"))  # jsonargparse imports a class by its name
NAME = re.compile(r"[a-z][a-z0-9_]*")  # a value that names no class


class Undecided(Exception):
    """Only the real parser can tell."""


class Recorded:
    """The content of settings.json. `usable` is False if another version of Lightning, whose Trainer has settings, is
    installed."""

    def __init__(self) -> None:
        content = json.loads(FILE.read_text(encoding="utf-8"))
        self.usable = content["lightning"] == version("lightning")
        self._commands, self._groups, self._classes = content["commands"], content["groups"], content["classes"]
        self._declared = content["declared"]
        self._made: dict[str, Any] = {}

    def fresh(self) -> bool:
        """True if no declaration of a setting was changed since the file was written."""
        return all(declarations(CHECKOUT / name) == digest for name, digest in self._declared.items())

    def parser(self, command: str) -> "RecordedParser":
        written = self._commands[command]
        parser = RecordedParser(command, written["more"])
        parser.hidden, parser.brief = written["hidden"], written["brief"]
        for part in written["parts"]:
            if part == "config":
                parser.add_config()
            elif isinstance(part, str):
                parser.add_group(self._group(self._groups[part]))
            else:
                more = {name: self._value(value) for name, value in part["more"].items() if name != "type"}
                more |= {"type": self._hint(part["more"]["type"])} if "type" in part["more"] else {}
                parser.add_argument(*part["names"], help=part["help"], **more)
        named = {key: one.hint for key, one in parser.settings.items() if _opaque(one.hint)}
        parser.open_to_classes = {key: _without_classes(hint) for key, hint in named.items()}
        return parser

    def _group(self, written: dict[str, Any]) -> Group:
        defaults = {name: self._value(value) for name, value in written["defaults"].items()}
        settings = [
            Setting(
                one["key"], self._hint(one["hint"]), self._default(one), one["help"],
                one.get("fields"), one.get("heading", False),
            )
            for one in written["settings"]
        ]  # fmt: skip
        return Group(self._class(written["kind"]), written["key"], written["skip"], defaults, settings)

    def _default(self, written: dict[str, Any]) -> Any:
        return self._value(written["default"]) if "default" in written else NOTHING

    def _class(self, name: str) -> Any:
        """The stand-in of a class: with its fields, or without any for a class of Lightning that a config may name."""
        if name not in self._made:
            short, fields = name.rpartition(".")[2], self._classes[name]
            if fields is None:
                self._made[name] = type(short, (), {})
            else:
                made = [(one["name"], _without_classes(self._hint(one["hint"])), self._field(one)) for one in fields]
                self._made[name] = make_dataclass(short, made, kw_only=True)
            self._made[name].__module__ = STAND_INS.__name__
            setattr(STAND_INS, short, self._made[name])
        return self._made[name]

    def _field(self, written: dict[str, Any]) -> Any:
        value = self._default(written)
        return field() if value is NOTHING else field(default_factory=lambda: value)

    def _hint(self, written: Any) -> Any:
        if isinstance(written, str):
            return PLAIN[written] if written in PLAIN else self._class(written)
        kind, *parts = written
        if kind == "Literal":
            return Literal[tuple(parts)]
        hints = tuple(map(self._hint, parts))
        return typing.Union[hints] if kind == "Union" else GENERIC[kind][hints]  # noqa: UP007

    def _value(self, written: Any) -> Any:
        if isinstance(written, dict) and "class" in written:
            return self._class(written["class"])(**{name: self._value(one) for name, one in written["fields"].items()})
        if isinstance(written, dict) and "tuple" in written:
            return tuple(written["tuple"])
        return written


class RecordedParser(Parser):
    """A parser over stand-ins. `parse` raises Undecided where the real parser may find something else."""

    open_to_classes: dict[str, Any]  # settings that a class may stand for, with their types without classes

    def parse(self, args: Sequence[str], otherwise: Callable[[], Path] | None = None) -> Namespace:
        if any(name.endswith("+") or name == "print_config" for name, _ in options(args)):
            raise Undecided
        return super().parse(args, otherwise)

    def given(self, args: Sequence[str]) -> list[tuple[str, Any, bool]]:
        given = super().given(args)
        for key, value, text in given:
            parents = {key, *(key[: dot.start()] for dot in re.finditer(r"\.", key))}
            for one in parents & self.open_to_classes.keys():
                named = isinstance(value, str) and not NAME.fullmatch(value)
                if one != key or named or not is_valid(self.open_to_classes[one], value, text):
                    raise Undecided
        return given


def _opaque(hint: Any) -> bool:
    """True if the hint has a class that is neither plain nor a group of settings."""
    if typing.get_origin(hint) is Literal:
        return False
    args = [one for one in typing.get_args(hint) if one is not ...]
    known = hint in PLAIN.values() or hint is NOTHING or hint is None or hasattr(hint, "__dataclass_fields__")
    return any(map(_opaque, args)) if args else not known


def _without_classes(hint: Any) -> Any:
    """The union without the members that are opaque; the hint itself if it has none."""
    if not _opaque(hint):
        return hint
    return reduce(or_, (one for one in typing.get_args(hint) if not _opaque(one)))


def declarations(path: Path) -> str:
    """The digest of a file without the bodies of its functions, except those that add options to a parser."""
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef) and not node.name.startswith(("add_", "build_parser", "fit_parser")):
            first, last = node.body[0].lineno, int(node.end_lineno or 0)
            lines[first - 1 : last] = [""] * (last - first + 1)
    kept = [line for line in lines if line.strip() and not line.startswith(("import ", "from "))]
    return hashlib.blake2b("\n".join(kept).encode(), digest_size=8).hexdigest()
