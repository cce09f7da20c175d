"""The parser behind the commands. Every error is one line with the key in full, the value and the way out."""

import dataclasses
import logging
import re
import textwrap
from argparse import ArgumentError
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from jsonargparse import ActionConfigFile, ArgumentParser, Namespace  # type: ignore[attr-defined]  # it is exported

from commands.class_paths import check_class_paths, is_file
from commands.no_effect import without_effect
from commands.preflight import COMMANDS, config_files, options
from commands.ranges import COUNT_OR_SHARE, check_ranges
from commands.settings import NOTHING, WIDTH, Setting, settings_of, type_text
from commands.yaml_files import load_yaml
from errors import UserError, suggest

log = logging.getLogger("thinkwright")
Given = tuple[str, Any, bool]  # a key in full, its value, and whether the value is text from the command line
CAUSE = re.compile(r"Problem with given class_path '[^']*':\s*(.*[^:])$", re.MULTILINE)


@dataclasses.dataclass(frozen=True)
class Option:
    """An option of one command: the arguments of jsonargparse's `add_argument`."""

    names: tuple[str, ...]
    help: str
    more: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Group:
    """The settings of a class (`kind`) below `key`, without those in `skip`, and with other `defaults`."""

    kind: Any
    key: str | None
    skip: Collection[str]
    defaults: dict[str, Any]
    settings: Sequence[Setting]


class Parser:
    """A parser of jsonargparse (`inner`) that knows its settings, for --help and for errors."""

    def __init__(self, command: str, more: str = "") -> None:
        self.inner = ArgumentParser(prog=f"cli.py {command}", exit_on_error=False, allow_abbrev=False, add_help=False)
        self.command, self.more = command, more
        self.description = f"{COMMANDS[command][:1].upper()}{COMMANDS[command][1:]}. {more}"
        self.parts: list[Option | Group] = []  # in their order
        self.settings: dict[str, Setting] = {}
        self.several: set[str] = set()  # options that take several values
        self.hidden: Collection[str] = ()  # groups of settings that --help does not list
        self.brief: Collection[str] = ()  # groups of which it has the first sentence of each meaning

    def add_argument(self, *names: str, help: str, **more: Any) -> None:
        """Add an option, with the arguments of jsonargparse's method."""
        self.parts.append(Option(names, help, more))
        self.inner.add_argument(*names, help=help, **more)
        key, positional = names[-1].removeprefix("--"), not names[0].startswith("-")
        if "nargs" in more:
            self.several.add(key)
        default = more.get("default") if "type" in more and not positional else NOTHING
        self.settings[key] = Setting(key, more.get("type"), default, help, positional=positional)

    def add_config(self) -> None:
        text = "YAML file of settings, see configs/. Several are merged key by key, and the later value wins."
        self.add_argument("-c", "--config", action=ActionConfigFile, help=text)
        self.settings["print_config"] = Setting("print_config", None, NOTHING, "Print all settings as YAML, and exit.")

    def add_allowed_modules(self) -> None:
        text = (
            "Modules whose classes a config may name, beside those of Lightning, torch, torchmetrics and this project."
        )
        self.add_argument("--allow_modules", type=str, nargs="+", default=[], help=f"{text} Not for a config file.")

    def add_class_arguments(
        self, kind: Any, key: str | None, title: str = "", skip: Collection[str] = (), **defaults: Any
    ) -> None:
        """Add the settings of a class below `key`, without those in `skip`, and with other `defaults`."""
        found = [Setting(key, dict, NOTHING, title, kind, heading=True)] if key else []
        found += settings_of(kind, key, skip)
        settings = [
            dataclasses.replace(one, default=defaults.get(one.key.partition(".")[2], one.default)) for one in found
        ]
        self.add_group(Group(kind, key, skip, defaults, settings))

    def add_group(self, group: Group) -> None:
        self.parts.append(group)
        more: dict[str, Any] = {"instantiate": False, "sub_configs": True} if group.key else {}
        default, skip = group.defaults or None, set(group.skip)
        self.inner.add_class_arguments(group.kind, group.key, skip=skip, default=default, fail_untyped=False, **more)
        self.settings |= {one.key: one for one in group.settings}

    def help(self) -> str:
        """The meaning of each setting, in lines of at most 80 characters."""
        lines = [f"usage: python cli.py {self.command} [options]", "", *textwrap.wrap(self.description, WIDTH), ""]
        for group, one in ((key.partition(".")[0], one) for key, one in self.settings.items()):
            lines += one.lines(group in self.brief) if group not in self.hidden else []
        return "\n".join(lines)

    def read(self, args: Sequence[str], otherwise: Callable[[], Path] | None = None) -> Namespace:
        """The settings given, with defaults; without a --config, with the config that `otherwise` names. Says which
        have no effect. Raises UserError for a mistake; --help and --print_config exit."""
        if {"-h", "--help"} & set(args):
            print(self.help())
            raise SystemExit(0)
        found = self.parse(args, otherwise)
        for line in without_effect(self.command, self.settings, found):
            log.warning(line)
        return found

    def parse(self, args: Sequence[str], otherwise: Callable[[], Path] | None = None) -> Namespace:
        """The settings, as `read` returns them, without a word."""
        if otherwise is not None and not config_files(args):
            args = ["--config", str(otherwise()), *args]
        given = self.given(args)
        try:
            found = self.inner.parse_args(list(args))
        except (ArgumentError, OverflowError) as error:
            raise self._explain(str(error), given, config_files(args)) from error
        # Python may give the union `int | float` in either order, and then "1" becomes 1.0: all batches, not one
        chosen = {key: value for key, value, text in sorted(given, key=lambda one: one[2])}  # a config's come first
        for key, value in chosen.items():
            if key in COUNT_OR_SHARE and re.fullmatch(r"[-+]?\d+", str(value)):
                found[key] = int(value)
        self.check(found)
        return found

    def given(self, args: Sequence[str]) -> list[Given]:
        """All values on the command line, then those in the configs. Raises UserError for a key that does not exist, a
        group without a mapping, and a class that may not be named."""
        values = [(key, text, True) for key, text in options(args)]
        values += [(str(key), value, False) for name in config_files(args) for key, value in read_yaml(name).items()]
        given = [leaf for value in values for leaf in self._leaves(*value)]
        for key, _, _ in given:
            parents = [self.settings.get(key[: dot.start()]) for dot in re.finditer(r"\.", key)]
            if key not in (*self.settings, "c") and not any(one is not None and one.open for one in parents):
                fix = suggest(key, self.settings, f"see python cli.py {self.command} --help")
                raise UserError(key, None, "there is no such setting", fix)
        for key, value, text in given:  # the parser takes null and a list for a group, and then lacks its settings
            if (one := self.settings.get(key)) is not None and one.heading and (not text or value == "null"):
                raise UserError(key, "null" if value is None else value, "is not valid", "give {key: value, ...}")
        if "allow_modules" in self.settings:
            check_class_paths(self.settings, given)
        return given

    def check(self, given: Namespace) -> None:
        """Raise UserError for a value out of its range, and for null if the setting does not take null."""
        check_ranges({key: one.hint for key, one in self.settings.items() if one.fields is None}, given)

    def build(self, given: Namespace, *groups: str) -> Any:
        """Groups of the settings, with the classes in them built."""
        chosen = Namespace({group: given[group] for group in groups})  # type: ignore[no-untyped-call]
        return self.inner.instantiate(chosen)

    def _leaves(self, key: str, value: Any, text: bool) -> Iterator[Given]:
        """The keys and values inside a value, or the value itself if it is not a group of settings."""
        key = key.removesuffix("+")
        one = self.settings.get(key)
        grouped = one is not None and one.fields is not None
        if grouped and text and value[:1] in ("{", "["):
            with suppress(ValueError):
                value, text = load_yaml(value), False
        elif grouped and text and is_file(value):
            value, text = read_yaml(value), False
        if grouped and isinstance(value, dict | list):
            children = [(f"{key}.{name}", value[name]) for name in value] if isinstance(value, dict) else []
            if value == []:
                yield key, value, text
            for name, child in children or [(key, one) for one in value]:
                yield from self._leaves(name, child, text)
        else:
            yield key, value, text

    def _explain(self, message: str, given: Sequence[Given], configs: Sequence[str]) -> UserError:
        """The parser's message as one sentence about the setting that it comes from."""
        for key, value, text in given:
            one = self.settings.get(key)
            if key in self.several and isinstance(value, list):  # the hint is that of one value
                continue
            if one is not None and one.hint is not None and not is_valid(one.hint, value, text):
                cause = CAUSE.search(message) if one.open else None
                problem = f"is not valid ({cause[1].strip()})" if cause else "is not valid"
                return UserError(key, value, problem, f"give {type_text(one.hint).replace('|', ' or ')}")
        if configs and "required" in message:
            key = max(filter(message.count, self.settings), key=len)
            problem = f"is not given: {configs[0]} is an overlay"
            return UserError(key, None, problem, f"add --config configs/multi_think.yaml before it, or --{key}")
        problem = " ".join(message.split())[:500].rstrip(".")
        named = re.search(r'key "([\w.]+)"', message)
        return UserError(
            named[1] if named else "command line", None, problem, f"see python cli.py {self.command} --help"
        )


def read_yaml(name: str, setting: str = "--config") -> dict[Any, Any]:
    """Return the settings in a file. Raises UserError, which names `setting`, for a file that holds none."""
    try:
        content = load_yaml(Path(name).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(setting, name, f"cannot be read ({error.strerror})", "give a file that can be read") from error
    except ValueError as error:
        problem = f"is not YAML ({' '.join(str(error).split())[:200]})"
        raise UserError(setting, name, problem, "correct the file") from error
    if not isinstance(content, dict):
        raise UserError(setting, name, "holds no settings", "write them as in configs/demo.yaml")
    return content


def is_valid(hint: Any, value: Any, text: bool) -> bool:
    """True if a setting of this type takes the value."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--value", type=hint)
    try:
        parser.parse_args([f"--value={value}"]) if text else parser.parse_object({"value": value})
    except ArgumentError:
        return False
    return True
