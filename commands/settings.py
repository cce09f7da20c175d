"""The settings of a class, read from its signature and its docstrings: for --help and for errors."""

import dataclasses
import inspect
import re
import textwrap
import types
import typing
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import docstring_parser

WIDTH = 80  # columns of a terminal
PLAIN = (bool, int, float, str, types.NoneType)
LONGEST = 60  # characters of a default that is shown
NOTHING = inspect.Parameter.empty  # for a setting without a default


@dataclass(frozen=True)
class Setting:
    """One key. `fields` is the dataclass whose fields are the keys below this one, `heading` is True where the key
    has no value of its own beside them."""

    key: str
    hint: Any
    default: Any
    help: str
    fields: Any = None
    heading: bool = False

    @property
    def open(self) -> bool:
        """True if keys below this one are not listed: those of a mapping or of a class that a config names."""
        return self.fields is None and any(
            kind not in PLAIN and kind not in (list, tuple) for kind in _kinds(self.hint)
        )

    def lines(self, brief: bool = False) -> Iterator[str]:
        """The setting as --help shows it; `brief` drops the type and all but the first sentence of the meaning."""
        if self.heading:
            yield from _wrapped(f"{self.key}: {self.help}", 2)
            return
        hint = "" if brief or self.hint is None else f" {type_text(self.hint)}"
        default = "" if self.default is NOTHING or self.fields else f" = {value_text(self.default)}"
        meaning = re.sub(r":\w+:`~?([^`]*)`", r"\1", self.help).replace("``", "")
        yield from _wrapped(f"--{self.key}{hint}{default}", 2)
        yield from _wrapped(re.split(r"(?<=\.)\s", meaning, maxsplit=1)[0] if brief else meaning, 6)


def _wrapped(text: str, indent: int) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=" " * indent, subsequent_indent=" " * max(4, indent))


def settings_of(kind: Any, key: str | None = None, skip: Collection[str] = ()) -> list[Setting]:
    """The settings of a class below `key`: first the plain ones, then groups of them, each in the signature's order."""
    documented = [
        *docstring_parser.parse_from_object(kind).params,
        *docstring_parser.parse(inspect.getdoc(kind.__init__) or "").params,
    ]
    meanings = {one.arg_name: " ".join((one.description or "").split()) for one in documented}
    defaults = {}
    if dataclasses.is_dataclass(kind):
        factories = {field.name: field.default_factory for field in dataclasses.fields(kind)}
        defaults = {name: make() for name, make in factories.items() if make is not dataclasses.MISSING}
    plain: list[Setting] = []
    groups: list[Setting] = []
    for name, parameter in inspect.signature(kind).parameters.items():
        if name in skip:
            continue
        hint, own = parameter.annotation, f"{key}.{name}" if key else name
        fields = next((one for one in _kinds(hint) if dataclasses.is_dataclass(one)), None)
        one = Setting(own, hint, defaults.get(name, parameter.default), meanings.get(name, ""), fields, hint is fields)
        (plain if fields is None else groups).append(one)
    return plain + [one for group in groups for one in [group, *_below(group)]]


def _below(group: Setting) -> list[Setting]:
    """The settings in a group. In a list of groups those that are groups themselves stand for all their keys."""
    found = settings_of(group.fields, group.key)
    if any(typing.get_origin(part) is list for part in (group.hint, *typing.get_args(group.hint))):
        direct = [one for one in found if one.key.count(".") == group.key.count(".") + 1]
        return [dataclasses.replace(one, fields=None) for one in direct]
    return found


def _kinds(hint: Any) -> list[Any]:
    """The classes in a type hint, without literals."""
    if typing.get_origin(hint) is typing.Literal:
        return [type(value) for value in typing.get_args(hint)]
    parts = [kind for part in typing.get_args(hint) if part is not ... for kind in _kinds(part)]
    if typing.get_origin(hint) is dict:
        return [dict, *parts]
    return parts or [hint]


def type_text(hint: Any) -> str:
    """A type hint in a user's words."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return "|".join(map(str, args))
    if origin in (typing.Union, types.UnionType):
        return "|".join(dict.fromkeys(map(type_text, args)))
    if origin is list:
        return f"[{type_text(args[0])}, ...]"
    if origin is tuple:
        return f"[{', '.join(map(type_text, args))}]"
    if origin is dict or hint is dict:
        return "{name: value, ...}"
    if dataclasses.is_dataclass(hint):
        return "{settings}"
    known = {types.NoneType: "null", str: "text", bool: "true|false"}
    return known.get(hint) or str(getattr(hint, "__name__", hint))


def value_text(value: Any) -> str:
    """A default as it stands in a config."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = f"[{', '.join(map(value_text, value))}]" if isinstance(value, list | tuple) else str(value)
    return text if len(text) <= LONGEST else f"{text[: text.rfind(',', 0, LONGEST)]}, ...]"
