"""Odd values of every setting of every command: a command that takes one works, or refuses it in one line.

A number that is not finite is refused for every setting that takes a fraction.
"""

import functools
import resource
import typing
from collections.abc import Callable, Iterator

from commands.settings import Setting
from tests.torture.forked import run
from tests.torture.suite import DONE, REFUSED, Case, ends_well, error_line, numbered
from tests.torture.world import FIT, World

KIND = "odd values"
NOT_FINITE = ("nan", "inf", "-inf")
NUMBERS = (
    *NOT_FINITE,
    "-1",
    "0",
    "-0.0",
    "1e-320",
    "1e308",
    str(2**70),
    str(-(2**70)),
    "0.5",
    "true",
    "null",
    "",
    "1_0",
)
TEXTS = (
    "",
    " ",
    "x" * 300,
    "../x",
    "~nouser/x",
    "/dev/null/x",
    "exp[1]",
    "a/b",
    "\u202ex",
    "\x1b[31m",
    "\n",
    "-",
    "None",
    "5",
)
OTHERS = (
    "",
    "null",
    "nan",
    "-1",
    str(2**70),
    "[]",
    "{}",
    "[null]",
    "[nan]",
    "{a: [nan]}",
    "x" * 300,
    "true",
    "[[]]",
    "/",
)
SHORT = (
    *FIT, "--trainer.max_steps", "2", "--trainer.max_epochs", "1", "--model.evaluation.rows", "0",
)  # fmt: skip
COMMANDS = {
    "fit": ("fresh", SHORT),
    "generate": ("trained", ("generate", "--prompt", "Solve x + 5 = 12", "--max_new_tokens", "4")),
    "evaluate": ("trained", ("evaluate", "--task", "questions.jsonl", "--max_new_tokens", "4", "--limit", "1")),
    "export": ("trained", ("export",)),
    "preview": ("fresh", ("preview", "--config", "config.yaml")),
    "estimate": ("fresh", ("estimate", "--config", "config.yaml")),
    "replay": ("trained", ("replay",)),
    "validate": ("trained", ("validate",)),
}  # fmt: skip
MEMORY = 16 * 2**30  # bytes that a process may ask for
SECONDS = 60.0


def cases(world: World) -> list[Case]:
    return numbered(KIND, _checks(world))


def _checks(world: World) -> Iterator[tuple[str, Callable[[], None]]]:
    for command, settings in _settings().items():
        for one in settings:
            for value in _values(one):
                words = f"{command} --{one.key}={value[:40]!r}"
                yield words, functools.partial(_check, world, command, one, value)


def _settings() -> dict[str, list[Setting]]:
    """The settings of each command; those of fit are tried with fit only."""
    from commands import estimate, evaluate, generate
    from commands.fit_settings import fit_parser
    from commands.parsing import Parser
    from commands.which_run import add_run_arguments

    of_runs = Parser("export")
    add_run_arguments(of_runs)
    fit = fit_parser("fit").settings
    generating = generate.build_parser().settings
    asking = {key: one for key, one in evaluate.build_parser().settings.items() if key not in generating}
    of_fit = {key: one for key, one in fit.items() if key not in ("config", "print_config")}
    found = {
        "fit": of_fit,
        "generate": generating,
        "evaluate": asking,
        "export": of_runs.settings | {"to": Setting("to", str, None, "")},
        "preview": {key: Setting(key, str, None, "") for key in ("row", "rows", "jsonl", "html", "limit")},
        "estimate": {key: one for key, one in estimate.build_parser().settings.items() if key not in fit},
        "replay": {key: Setting(key, str, None, "") for key in ("precision", "device")},
        "validate": {key: of_fit[key] for key in ("ckpt_path", "run.root", "run.name", "data.val_batch_size")},
    }
    return {command: [one for one in settings.values() if not one.heading] for command, settings in found.items()}


def _kinds(hint: object) -> set[object]:
    parts = typing.get_args(hint)
    return {kind for part in parts for kind in _kinds(part)} if parts else {hint}


def _values(one: Setting) -> tuple[str, ...]:
    kinds = _kinds(one.hint) - {type(None)}
    if kinds <= {int, float, bool} or "number" in str(one.hint) or "Seed" in str(one.hint):
        infinite = NOT_FINITE[len(one.key) % len(NOT_FINITE)]  # one of them, another one for another setting
        return tuple(value for value in NUMBERS if value == infinite or value not in NOT_FINITE)
    return TEXTS if kinds == {str} else OTHERS


def _check(world: World, command: str, one: Setting, value: str) -> None:
    start, args = COMMANDS[command]
    with world.copy(start) as folder:
        if command == "replay":
            args = (*args, str(next(folder.glob("runs/*/*/nonfinite/*.replay")).relative_to(folder)))
        ended = run((*args, f"--{one.key}={value}"), folder, _limit_memory, SECONDS)
        ends_well(ended, DONE, REFUSED)
        if ended.code == REFUSED:
            line, parts = error_line(ended), one.key.split(".")
            assert any(part in line for part in (parts[-1], parts[0])), f"the setting is not named: {line}"
            assert len(line) < 1_000, f"a line of {len(line)} characters"
        else:
            fraction = _kinds(one.hint) - {type(None)} == {float}
            assert not (fraction and value in NOT_FINITE), "a number that is not finite was accepted"


def _limit_memory() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
