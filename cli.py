"""The command line. `main(args)` picks the command, loads only what that needs, and turns mistakes into one line.

python cli.py fit --config configs/demo.yaml
python cli.py validate
python cli.py generate --prompt "Solve x + 5 = 12"
"""

import os
import sys
import traceback
from collections.abc import Sequence

from commands.preflight import require_config_files
from errors import INTERRUPTED, UserError, did_you_mean

VERSION = "0.1.0"
COMMANDS = {
    "fit": "train by a config; continue a run with --ckpt_path last",
    "validate": "measure a run's best checkpoint on the validation rows",
    "test": "the same on held-out rows that validation never saw",
    "predict": "answer those rows and write predictions.jsonl",
    "preview": "look at the data as the model sees it, with what is left out and why",
    "estimate": "what a device would hold of a config's model, before anything is loaded",
    "generate": "ask a run's model",
    "export": "write a run's model as a folder that transformers opens",
    "replay": "compute again, row by row, a step that ended a fit since it was not finite",
}
HELP = f"""usage: python cli.py COMMAND [options]

Teach a small language model to think before it answers.

commands:
{chr(10).join(f"  {name:<10} {text}" for name, text in COMMANDS.items())}

  python cli.py fit --config configs/demo.yaml      train the embedded model, no network or GPU needed
  python cli.py COMMAND --help                      all options of a command
  --version                                         print the version

THINKWRIGHT_TRACEBACK=1 shows the traceback of an error.
"""


def main(args: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code: 0, 2 for a mistake of the user's, 130 or 143 after a signal."""
    args = list(sys.argv[1:] if args is None else args)
    if not args or args[0] in ("-h", "--help"):
        print(HELP, end="")
        return 0 if args else 2
    if args[0] == "--version":
        print(VERSION)
        return 0
    try:
        command, rest = args[0], args[1:]
        if command not in COMMANDS:
            near = did_you_mean(command, COMMANDS)
            raise UserError(
                "command", command, "does not exist", f"did you mean {near}?" if near else "see python cli.py --help"
            )
        require_config_files(rest)
        if command == "generate":
            from commands.generate import run
        elif command == "export":
            from commands.export import run
        elif command == "preview":
            from commands.preview import run
        elif command == "estimate":
            from commands.estimate import run
        elif command == "replay":
            from commands.replay import run
        else:
            from commands.trainer import run
        return run(rest if command in ("generate", "export", "preview", "estimate", "replay") else args)
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
        # Threads of a download that broke off would abort an interpreter that shuts down in order, and worker
        # processes that outlived an error would be waited for; they end by themselves once this one is gone
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
