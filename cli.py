"""The command line: python cli.py fit --config configs/demo.yaml. It imports only what the command needs."""

import gc
import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module

from commands.preflight import COMMANDS, find_configs
from errors import INTERRUPTED, TERMINATED, UserError, suggest
from visible import visible

VERSION = "0.1.0"
EXIT_CODES = {
    0: "done", 1: "a fault of the program", 2: "a mistake in settings, data or files",
    INTERRUPTED: "Ctrl-C", TERMINATED: "SIGTERM",
}  # fmt: skip
TRAINER = ("fit", "validate", "test", "predict")  # commands that run Lightning's Trainer
HELP = f"""usage: python cli.py COMMAND [options]

Teach a small language model to think before it answers.

commands:
{chr(10).join(f"  {name:<10} {text}" for name, text in COMMANDS.items())}

  python cli.py fit --config configs/demo.yaml      train the embedded model, no network or GPU needed
  python cli.py COMMAND --help                      all options of a command
  --version                                         print the version

exit codes: {", ".join(f"{code} {text}" for code, text in EXIT_CODES.items())}
THINKWRIGHT_TRACEBACK=1 shows the traceback of an error."""


def main(args: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code, one of EXIT_CODES. Raise an error that no check foresaw."""
    args = list(sys.argv[1:] if args is None else args)
    try:
        if not args or args[0] in ("-h", "--help", "--version"):
            print(VERSION if "--version" in args else HELP, flush=True)
            return 0 if args else 2
        try:
            os.getcwd()
        except OSError as error:
            raise UserError("current folder", None, "does not exist any more", "go to another one") from error
        command, rest = args[0], args[1:]
        if command not in COMMANDS:
            fix = suggest(command, COMMANDS, "see python cli.py --help")
            raise UserError("command", command, "does not exist", fix)
        rest = find_configs(rest, needed=command in ("fit", "estimate"))
        try:
            if import_module("commands.at_once").answer(command, rest):
                return 0
            module = import_module(f"commands.{'fit' if command in TRAINER else command}")
        except ModuleNotFoundError as error:
            problem = f"is not installed for {sys.executable}"
            raise UserError(str(error.name), None, problem, "run make demo, or . .venv/bin/activate") from error
        if not gc.isenabled():
            gc.freeze()  # what the imports made stays, and is not searched for garbage any more
            gc.enable()
        return int(module.run([command, *rest] if command in TRAINER else rest))
    except UserError as error:
        if os.environ.get("THINKWRIGHT_TRACEBACK"):
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        from commands.at_fault import output_error, path_error

        known = path_error(error, args) or output_error(error)
        if os.environ.get("THINKWRIGHT_TRACEBACK") or known is None:
            raise
        print(f"error: {known}", file=sys.stderr)
        return 2
    except SystemExit as stop:  # --help and --print_config end this way
        return int(stop.code or 0)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED


def unexpected(error: Exception) -> str:
    """Return one line for an error that no check foresaw."""
    text = visible(" ".join(str(error).split())[:300])
    if isinstance(error, MemoryError) or "OutOfMemory" in type(error).__name__ or "can't allocate memory" in text:
        fix = "Lower data.batch_size or data.max_length, or set model.gradient_checkpointing true"
        return f"memory: {text or 'there is not enough'}. {fix}; python cli.py estimate tells how far."
    told = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return f"the program failed ({told}). THINKWRIGHT_TRACEBACK=1 shows where; please report it."


if __name__ == "__main__":
    gc.disable()  # until the imports are done: they make a million objects, and none of them is garbage
    # A standard output that is closed, as by `>&-`, is None in Python
    sys.stdout, sys.stderr = (one or open(os.devnull, "w") for one in (sys.stdout, sys.stderr))  # noqa: SIM115
    try:
        code = main()
    except BrokenPipeError:  # the reader of the output has ended, as in `| head`
        code = 0
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (else Python fails to flush the output at the end)
    except Exception as error:
        if os.environ.get("THINKWRIGHT_TRACEBACK"):
            traceback.print_exc()
        else:
            print(f"error: {unexpected(error)}", file=sys.stderr)
        code = 1
    if code:
        # A normal exit would wait for worker processes that still run after an error, and threads of a broken
        # download would abort it. Both end when this process ends
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
