"""The parser behind the commands. Every error is one line with the key in full, the value and the way out."""

import dataclasses
import re
import textwrap
from argparse import ArgumentError
from collections.abc import Collection, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ActionConfigFile, ArgumentParser, Namespace  # type: ignore[attr-defined]  # it is exported

from commands.preflight import config_files
from commands.settings import NOTHING, WIDTH, Setting, settings_of, type_text
from errors import UserError, did_you_mean

Given = tuple[str, Any, bool]  # a key in full, its value, and whether the value is text from the command line
CAUSE = re.compile(r"Problem with given class_path '[^']*':\s*(.+)")


class Parser:
    """A parser of jsonargparse that knows its settings, for --help and for errors."""

    def __init__(self, command: str, description: str) -> None:
        self.inner = ArgumentParser(prog=f"cli.py {command}", exit_on_error=False, allow_abbrev=False, add_help=False)
        self.command, self.description = command, description
        self.settings: dict[str, Setting] = {}
        self.parts: list[tuple[str, bool, list[Setting]]] = [("options", False, [])]  # of --help

    # Settings

    def add_argument(self, *names: str, help: str, type: Any = None, default: Any = None, **more: Any) -> None:
        """Add an option, with the arguments of jsonargparse's method."""
        if type is not None:
            more |= {"type": type, "default": default}
        self.inner.add_argument(*names, help=help, **more)
        self._add(0, Setting(names[-1].removeprefix("--"), type, default if type else NOTHING, help))

    def add_config(self) -> None:
        self.add_argument(
            "-c", "--config", action=ActionConfigFile, help="YAML file of settings, see configs/. Several files are "
            "merged key by key: the later one wins, and a setting after them wins over both.",
        )  # fmt: skip
        self._add(0, Setting("print_config", None, NOTHING, "Print all settings as YAML, and exit."))

    def add_class_arguments(
        self,
        kind: Any,
        key: str | None,
        title: str | None = None,
        skip: Collection[str] = (),
        defaults: dict[str, Any] | None = None,
        brief: bool = False,
    ) -> None:
        """Add the settings of a class. --help lists them below `title`; without one it lists those without a key."""
        more: dict[str, Any] = {"instantiate": False, "sub_configs": True} if key else {}
        self.inner.add_class_arguments(kind, key, skip=set(skip), default=defaults, fail_untyped=False, **more)
        found = [
            dataclasses.replace(one, default=(defaults or {}).get(one.key.rpartition(".")[2], one.default))
            for one in settings_of(kind, key, skip)
        ]
        if key:
            self.settings[key] = Setting(key, kind, NOTHING, title or "", kind, heading=True)
            self.parts.append((f"{key}: {title}" if title else "", brief, []))
        self._add(-1 if key else 0, *found)

    def _add(self, part: int, *settings: Setting) -> None:
        self.parts[part][2].extend(settings)
        self.settings |= {one.key: one for one in settings}

    def help(self) -> str:
        """The meaning of each setting, in lines of at most 80 characters."""
        lines = [f"usage: python cli.py {self.command} [options]", "", *textwrap.wrap(self.description, WIDTH)]
        for title, brief, settings in self.parts:
            if title:
                lines += ["", *textwrap.wrap(title, WIDTH), ""]
                for one in settings:
                    lines += [*([""] if one.heading else []), *one.lines(brief)]
        return "\n".join(lines)

    # Reading a command line

    def read(self, args: Sequence[str]) -> Namespace:
        """The settings given, with defaults. Raises UserError for a mistake; --help and --print_config exit."""
        if {"-h", "--help"} & set(args):
            print(self.help())
            raise SystemExit(0)
        given = [one for key, value in _given(args) for one in self._leaves(key, value, True)]
        for name in config_files(args):
            given += [one for key, value in _read_yaml(name).items() for one in self._leaves(str(key), value, False)]
        for key, value, _ in given:
            self._check_key(key, value)
        try:
            return self.inner.parse_args(list(args))
        except ArgumentError as error:
            raise self._explain(error, given) from error

    def _leaves(self, key: str, value: Any, text: bool) -> Iterator[Given]:
        """The keys and values inside a value, or the value itself if it is not a group of settings."""
        key = key.removesuffix("+")
        one = self.settings.get(key)
        if one is not None and one.fields is not None:
            if text and value[:1] in ("{", "["):
                value, text = yaml.safe_load(value), False
            if isinstance(value, dict):
                for name, child in value.items():
                    yield from self._leaves(f"{key}.{name}", child, text)
                return
            if isinstance(value, list) and not one.heading:
                for item in value:
                    yield from self._leaves(key, item, text)
                return
        yield key, value, text

    def _check_key(self, key: str, value: Any) -> None:
        """Raises UserError for a key that does not exist, and for a value in the place of a group of settings."""
        one = self.settings.get(key)
        if one is not None and one.heading and not isinstance(value, dict | str | None):
            raise UserError(key, value, "is not a group of settings", "write key: value lines below it")
        parents = (key[: match.start()] for match in re.finditer(r"\.", key))
        if one is None and not any(parent in self.settings and self.settings[parent].open for parent in parents):
            near = did_you_mean(key, self.settings)
            fix = f"did you mean {near}?" if near else f"python cli.py {self.command} --help lists all settings"
            raise UserError(key, None, "there is no such setting", fix)

    def _explain(self, error: ArgumentError, given: Sequence[Given]) -> UserError:
        """The error as one sentence about the setting that it comes from."""
        message = str(error)
        for key, value, text in given:
            one = self.settings.get(key)
            if one is not None and one.hint is not None and not _is_valid(one.hint, value, text):
                cause = CAUSE.search(message)
                problem = f"is not valid ({cause[1].strip()})" if cause and one.open else "is not valid"
                return UserError(key, value, problem, f"give {type_text(one.hint)}")
        problem = " ".join(message.split())[:500].rstrip(".")
        return UserError("command line", None, problem, f"python cli.py {self.command} --help lists all settings")


def _given(args: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(key, text) of each option."""
    for arg, following in pairwise([*args, ""]):
        if arg.startswith("--"):
            key, equals, value = arg[2:].partition("=")
            yield key, value if equals else following


def _read_yaml(name: str) -> dict[Any, Any]:
    try:
        content = yaml.safe_load(Path(name).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        problem = f"is not YAML ({' '.join(str(error).split())})"
        raise UserError("--config", name, problem, "correct the file") from error
    if not isinstance(content, dict):
        raise UserError("--config", name, "holds no settings", "write them as in configs/demo.yaml")
    return content


def _is_valid(hint: Any, value: Any, text: bool) -> bool:
    """True if a setting of this type takes the value."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--value", type=hint)
    try:
        parser.parse_args([f"--value={value}"]) if text else parser.parse_object({"value": value})
    except ArgumentError:
        return False
    return True
