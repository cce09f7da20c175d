"""The command line: python cli.py fit --config configs/demo.yaml. It imports only what the command needs."""

import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module

from commands.preflight import COMMANDS, find_configs
from errors import INTERRUPTED, UserError, suggest

VERSION = "0.1.0"
TRAINER = ("fit", "validate", "test", "predict")  # commands that run Lightning's Trainer
HELP = f"""usage: python cli.py COMMAND [options]

Teach a small language model to think before it answers.

commands:
{chr(10).join(f"  {name:<10} {text}" for name, text in COMMANDS.items())}

  python cli.py fit --config configs/demo.yaml      train the embedded model, no network or GPU needed
  python cli.py COMMAND --help                      all options of a command
  --version                                         print the version

THINKWRIGHT_TRACEBACK=1 shows the traceback of an error."""


def main(args: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code: 0, 2 for a mistake of the user's, 130 or 143 after a signal."""
    args = list(sys.argv[1:] if args is None else args)
    if not args or args[0] in ("-h", "--help", "--version"):
        print(VERSION if "--version" in args else HELP)
        return 0 if args else 2
    try:
        command, rest = args[0], args[1:]
        if command not in COMMANDS:
            fix = suggest(command, COMMANDS, "see python cli.py --help")
            raise UserError("command", command, "does not exist", fix)
        rest = find_configs(rest, needed=command in ("fit", "estimate"))
        try:
            module = import_module(f"commands.{'fit' if command in TRAINER else command}")
        except ModuleNotFoundError as error:
            problem = f"is not installed for {sys.executable}"
            raise UserError(str(error.name), None, problem, "run make demo, or . .venv/bin/activate") from error
        return int(module.run([command, *rest] if command in TRAINER else rest))
    except UserError as error:
        if os.environ.get("THINKWRIGHT_TRACEBACK"):
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2
    except SystemExit as stop:  # --help and --print_config end this way
        return int(stop.code or 0)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED


if __name__ == "__main__":
    try:
        code = main()
    except Exception:
        traceback.print_exc()
        code = 1
    if code:
        # A normal exit would wait for worker processes that still run after an error, and threads of a broken
        # download would abort it. Both end when this process ends
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
