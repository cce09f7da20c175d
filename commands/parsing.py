"""The parser behind the commands: errors in one line, with the key in full and the nearest right one."""

import dataclasses
import re
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import yaml
from lightning.pytorch.cli import LightningArgumentParser

from commands.preflight import config_files
from errors import UserError, did_you_mean

UNKNOWN = re.compile(
    r"unrecognized arguments: --([\w.]+)|does not accept option '([\w.]+)'|Option '([\w.]+)' is not accepted"
)
WRONG_VALUE = re.compile(
    r"Parser key \"(?P<key>[\w.]+)\":\s*(?P<problem>.*?)\.?\s+(Got|Given value type:.*?Given) value: (?P<value>.*)",
    re.DOTALL,
)


Groups = dict[str, tuple[str, ...] | None]  # of a config, and the keys that matter of each; None for all


class Complaint(Exception):
    """What a parser has to say, and the parser that says it."""

    def __init__(self, message: str, parser: "Parser") -> None:
        super().__init__(message)
        self.parser = parser


class Parser(LightningArgumentParser):
    """Raises Complaint where argparse would print pages of usage and exit."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, allow_abbrev=False, **kwargs)  # --trainer.max_epoch is a mistake, not an abbreviation

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        raise Complaint(str(message), self)

    def keys(self) -> Iterator[str]:
        """All settings in full, those inside optional groups and subcommands included."""
        for action in self._actions:
            yield action.dest
            yield from (f"{action.dest}.{name}" for name in _fields_in(getattr(action, "_typehint", None)))
        if self._subcommands_action is not None:
            for parser in self._subcommands_action.choices.values():
                yield from parser.keys()


def _fields_in(hint: Any) -> Iterator[str]:
    """Names of the fields of a dataclass, or of the dataclass in an optional."""
    for kind in (hint, *typing.get_args(hint)):
        if dataclasses.is_dataclass(kind):
            yield from (field.name for field in dataclasses.fields(kind))


def explain(complaint: Complaint, args: Sequence[str]) -> UserError:
    """The complaint as one sentence about something that the user gave."""
    message = _innermost(complaint)
    if unknown := UNKNOWN.search(message):
        key = _in_full(next(filter(None, unknown.groups())), args)
        near = did_you_mean(key, set(complaint.parser.keys()))
        return UserError(
            key,
            None,
            "there is no such setting",
            f"did you mean {near}?" if near else f"python cli.py {args[0]} --help lists all",
        )
    if wrong := WRONG_VALUE.search(message):
        expected = re.sub(r"<class '(\w+)'>|typing\.", r"\1", " ".join(wrong["problem"].split()))
        expected = re.sub(r".*Errors: - ", "", expected).replace(" - Expected a", " or a").replace("NoneType", "null")
        return UserError(_in_full(wrong["key"], args), wrong["value"].strip(), "is not what it can be", expected)
    for name in config_files(args):
        try:
            yaml.safe_load(Path(name).read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            return UserError("--config", name, f"is not YAML ({' '.join(str(error).split())})", "mend the file")
    return UserError(
        "command line",
        None,
        " ".join(message.split())[:500].rstrip("."),
        f"python cli.py {args[0]} --help lists all settings",
    )


def _innermost(error: BaseException) -> str:
    """What the deepest of nested parsers said: the others only add that no kind of an optional group matched."""
    message, link = str(error), error.__cause__ or error.__context__
    while link is not None:
        message = str(link) if isinstance(link, Complaint) else message
        link = link.__cause__ or link.__context__
    return message


def only_what_matters(args: Sequence[str], matters: Groups) -> list[str]:
    """The arguments of a command that takes configs of fit, which have more than it has a use for. A parser reads
    a config from its text as well as from a file, so the files are given as what is left of them."""
    texts = {name: what_matters(name, matters) for name in config_files(args)}
    return [
        texts.get(arg, arg) if before in ("-c", "--config") else _of_file(arg, texts)
        for before, arg in zip(["", *args], args, strict=False)
    ]


def _of_file(arg: str, texts: dict[str, str]) -> str:
    option, equals, name = arg.partition("=")
    return f"{option}={texts[name]}" if option == "--config" and equals else arg


def what_matters(name: str, matters: Groups) -> str:
    """The YAML of a config file without the other groups and keys."""
    try:
        content = yaml.safe_load(Path(name).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        problem = f"is not YAML ({' '.join(str(error).split())})"
        raise UserError("--config", name, problem, "mend the file") from error
    if not isinstance(content, dict):
        raise UserError("--config", name, "holds no settings", "write them as in configs/demo.yaml")
    for key in content:
        if key not in matters and (near := did_you_mean(str(key), matters)):
            raise UserError(str(key), None, "there is no such setting", f"did you mean {near}?")
    kept = {}
    for group, keys in matters.items():
        found = content.get(group) or {}
        if not isinstance(found, dict):
            raise UserError(group, found, "is not a group of settings", "write them as in configs/demo.yaml")
        kept[group] = {key: value for key, value in found.items() if keys is None or key in keys}
    return yaml.safe_dump(kept, allow_unicode=True)


def missing_package(error: BaseException | None) -> ModuleNotFoundError | None:
    """The import that failed behind an error, if that is what it comes from."""
    while error is not None and not isinstance(error, ModuleNotFoundError):
        error = error.__cause__ or error.__context__
    return error


def _in_full(key: str, args: Sequence[str]) -> str:
    """jsonargparse leaves out the group of a key inside an optional group; what the user gave has it in full."""
    given = [arg[2:].partition("=")[0] for arg in args if arg.startswith("--")]
    for name in config_files(args):
        given += _flat(yaml.safe_load(Path(name).read_text()))
    return next((name for name in given if name == key or name.endswith(f".{key}")), key)


def _flat(node: Any, prefix: str = "") -> Iterator[str]:
    if isinstance(node, dict):
        for name, child in node.items():
            yield f"{prefix}{name}"
            yield from _flat(child, f"{prefix}{name}.")
