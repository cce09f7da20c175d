"""The settings of a class, read from its signature and its docstrings: for --help and for errors."""

import dataclasses
import inspect
import json
import re
import textwrap
import types
import typing
from collections.abc import Collection
from typing import Any

import docstring_parser

WIDTH = 80  # columns of a terminal
LONGEST = 60  # characters of a default that is shown
NOTHING = inspect.Parameter.empty  # for a setting without a default
PLAIN = (bool, int, float, str, list, tuple, types.NoneType)


@dataclasses.dataclass(frozen=True)
class Setting:
    """A key of a config and an option of the command line. `fields` is the class whose settings are below it, and a
    `heading` has no other value."""

    key: str
    hint: Any
    default: Any
    help: str
    fields: Any = None
    heading: bool = False
    positional: bool = False

    @property
    def open(self) -> bool:
        """True if any key may stand below this one: its value is a mapping, or a class that a config names."""
        return self.fields is None and any(kind not in PLAIN for kind in _kinds(self.hint))

    @property
    def names_class(self) -> bool:
        """True if the value, or one inside it, may name a class."""
        return self.fields is None and any(kind not in (*PLAIN, dict) for kind in _kinds(self.hint) if kind is not Any)

    def lines(self, brief: bool) -> list[str]:
        """The setting as --help shows it; a `brief` one without its type, and with one sentence."""
        meaning = re.sub(r":\w+:`~?([^`]*)`", r"\1", self.help).replace("``", "")
        if self.heading:
            return ["", *_wrapped(f"{self.key}: {meaning}", 2 if "." in self.key else 0), ""]
        hint = "" if brief or self.hint is None else f" {type_text(self.hint)}"
        default = "" if self.default is NOTHING or self.fields else f" = {value_text(self.default)}"
        head = f"{'' if self.positional else '--'}{self.key}{hint}{default}"
        return _wrapped(head, 2) + _wrapped(re.split(r"(?<=\.)\s", meaning)[0] if brief else meaning, 6)


def _wrapped(text: str, indent: int) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=" " * indent, subsequent_indent=" " * max(4, indent))


def settings_of(kind: Any, key: str | None = None, skip: Collection[str] = ()) -> list[Setting]:
    """The settings of a class below `key`: first the plain ones, then groups of them, each in the signature's order."""
    classes = [one for one in kind.__mro__ if dataclasses.is_dataclass(one)] or [kind]  # settings may be inherited
    documents = [docstring_parser.parse_from_object(one) for one in classes]
    documents.append(docstring_parser.parse(inspect.getdoc(kind.__init__) or ""))
    meanings = {one.arg_name: one.description or "" for document in documents for one in document.params}
    fields = dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else ()
    made = {one.name: one.default_factory() for one in fields if one.default_factory is not dataclasses.MISSING}
    found: list[Setting] = []
    for name, parameter in inspect.signature(kind).parameters.items():
        if name not in skip:
            hint, own = parameter.annotation, f"{key}.{name}" if key else name
            group = next((one for one in _kinds(hint) if dataclasses.is_dataclass(one)), None)
            meaning, default = " ".join(meanings.get(name, "").split()), made.get(name, parameter.default)
            found.append(Setting(own, hint, default, meaning, group, heading=hint is group))
    settings: list[Setting] = []
    for one in sorted(found, key=lambda one: one.fields is not None):
        below = settings_of(one.fields, one.key) if one.fields else []
        if list in _kinds(one.hint):  # in a list of groups, a setting that is a group itself stands for all its keys
            depth = one.key.count(".") + 1
            below = [dataclasses.replace(inner, fields=None) for inner in below if inner.key.count(".") == depth]
        settings += [one, *below]
    return settings


def _kinds(hint: Any) -> list[Any]:
    """The classes in a type hint; of a literal, those of its values."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return list(map(type, args))
    parts = [kind for part in args for kind in _kinds(part)]
    return [origin, *parts] if origin in (dict, list) else parts or [hint]


def type_text(hint: Any) -> str:
    """A type hint in a user's words."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return "|".join(map(str, args))
    if origin in (typing.Union, types.UnionType):
        return "|".join(dict.fromkeys(map(type_text, args)))
    if origin in (list, tuple):
        return f"[{', '.join(map(type_text, args))}{', ...' if origin is list else ''}]"
    if dict in (origin, hint) or dataclasses.is_dataclass(hint):
        return "{key: value, ...}"
    known = {types.NoneType: "null", str: "text", bool: "true|false"}
    return known.get(hint) or str(getattr(hint, "__name__", hint))


def value_text(value: Any) -> str:
    """A default as it stands in a config."""
    text = value if isinstance(value, str) else json.dumps(value, default=str).replace('"', "")
    return text if len(text) <= LONGEST else f"{text[: text.rfind(',', 0, LONGEST)]}, ...]"
