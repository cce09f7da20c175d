"""self_train: a run learns from its own right answers. Each round samples answers, keeps right ones and fits on them.

A round stands on three commands: `evaluate` asks and judges, own_rows.py chooses, `fit` trains from the round before.
They run as processes of their own, so a round's memory is free for the next, and each goes on where it was stopped.
"""

import json
import logging
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from commands.own_rows import write_rows
from commands.parsing import Parser
from commands.tasks import HELD_OUT, PUBLIC, read_task
from commands.which_run import find, run_config
from datamodules.text.tags import Tags
from disk import disk_errors, write_file
from errors import INTERRUPTED, TERMINATED, UserError
from hub import CHECKOUT
from lightning_modules.evaluation.answer_file import read_answers
from lightning_modules.evaluation.own_answers import Selection, SelectionSettings
from lightning_modules.generation.decoding import DecodingSettings
from lightning_modules.run.folder import Run, RunSettings, find_runs, root_folder

log = logging.getLogger("thinkwright")
SOURCE = {"name": "source", "revision": "revision", "split": "split", "config": "config"}  # in a mix: in data
TAKES = "give a file with instruction and answer in each line"


def build_parser() -> Parser:
    parser = Parser("self_train")
    parser.add_argument("--task", type=str | None, default=None, help="Questions with answers, as of evaluate --task.")
    parser.add_argument("--run", type=str | None, default=None, help="Folder runs/NAME/TIME; null is the newest run.")
    parser.add_argument("--root", type=str, default=RunSettings().root, help="Folder of all runs.")
    parser.add_argument("--rounds", type=int, default=1, help="Rounds of asking and training; 0 writes the rows only.")
    parser.add_argument("--samples", type=int, default=4, help="Answers to each question of a round.")
    parser.add_argument("--limit", type=int | None, default=None, help="Ask the first questions only; null asks all.")
    parser.add_argument("--seed", type=int, default=1, help="Random seed of sampling. Each round adds 1,000,003.")
    parser.add_class_arguments(SelectionSettings, None)
    parser.add_class_arguments(DecodingSettings, None, temperature=1.0)
    parser.add_argument(
        "--overlay",
        type=str,
        nargs="+",
        default=[],
        help="Configs for the fits, over the run's own: for example fewer epochs or a lower rate.",
    )
    parser.add_argument(
        "--to",
        type=str | None,
        default=None,
        help="Folder of answers, rows and rounds; the same folder again goes on. null: self-training in the run's.",
    )
    return parser


def run(args: Sequence[str]) -> int:
    given = build_parser().read(args)
    if given.task is None:
        raise UserError("--task", None, "is missing", TAKES)
    if given.temperature == 0:
        problem = "gives the same answer each time"
        raise UserError("--temperature", "0", problem, "give 1, the default")
    if given.task in (HELD_OUT, *PUBLIC):
        raise UserError("--task", given.task, "is for measuring: a run that learned from it could not be judged", TAKES)
    first, _ = find(given.run, None, given.root)
    folder = root_folder(given.to, "--to") if given.to else first.folder / "self-training"
    steps = Steps(given, first, folder)
    steps.check()
    current = first
    for number in range(1, max(1, given.rounds) + 1):
        log.info(f"round {number}/{max(1, given.rounds)}: {given.samples} answers to each question by {current.folder}")
        selection = steps.ask(current, number)
        print(f"round {number}: {described(selection)}", flush=True)
        if not selection.chosen:
            problem = "no answer was right and well-formed, so there is nothing to learn"
            raise UserError("--task", given.task, problem, "give easier questions, or raise --samples")
        if given.rounds == 0:
            print(steps.rows(number))
            return 0
        current = steps.fit(current, number, len(selection.chosen))
    print(f"{current.folder}")
    print(f"compare: python cli.py evaluate --task FILE --run {current.folder} --against {first.folder}")
    return 0


class Steps:
    """The steps of a round, each done once: what an earlier call has finished stays."""

    def __init__(self, given: Any, first: Run, folder: Path) -> None:
        self.given, self.first, self.folder = given, first, folder
        self.task = read_task(given.task).first(given.limit)
        self.config = run_config(first)
        self.tags = Tags(**self.config["data"]["tags"])

    def check(self) -> None:
        """Remember the settings in the folder. Raise UserError if it holds rounds of other settings."""
        names = ["task", "samples", "limit", "seed", "keep", "easy", "overlay", *vars(DecodingSettings())]
        settings = {name: self.given[name] for name in names} | {"run": str(self.first.folder.resolve())}
        path = self.folder / "settings.json"
        with disk_errors("--to", path):
            if path.is_file():
                before = json.loads(path.read_text(encoding="utf-8"))
                for name, value in settings.items():
                    if before.get(name) != value:
                        problem = f"holds rounds with {name} {before.get(name)}"
                        raise UserError("--to", self.folder, problem, "give the same settings, or a new folder")
            else:
                self.folder.mkdir(parents=True, exist_ok=True)
                write_file(path, json.dumps(settings, indent=2) + "\n")

    def rows(self, number: int) -> Path:
        return self.folder / f"round-{number}" / "rows.jsonl"

    def ask(self, run: Run, number: int) -> Selection:
        """Let `evaluate` ask and judge, then write the rows."""
        given, answers = self.given, self.rows(number).with_name("answers.jsonl")
        args = ["--task", given.task, "--run", str(run.folder), "--samples", str(given.samples)]
        args += ["--seed", str(given.seed + 1_000_003 * (number - 1)), "--to", str(answers)]
        args += [] if given.limit is None else ["--limit", str(given.limit)]
        for name, default in vars(DecodingSettings()).items():
            if given[name] != default:
                args.append(f"--{name}={given[name] if isinstance(given[name], str) else json.dumps(given[name])}")
        command("evaluate", *args)
        settings = SelectionSettings(given.keep, given.easy)
        return write_rows(self.task, read_answers(answers, "--to"), self.rows(number), self.tags, settings)

    def fit(self, run: Run, number: int, chosen: int) -> Run:
        """Train a run that begins with the weights of `run`, on its rows and the first run's; return it."""
        name = f"{self.first.folder.parent.name}-round-{number}"
        root = str(self.first.folder.parent.parent)
        configs = [str(self.first.config()), *self.given.overlay]
        args = [part for config in configs for part in ("--config", config)]
        args += [
            f"--run.name={name}",
            f"--run.root={root}",
            f"--model.start={run.folder.resolve()}",
            "--ckpt_path=null",
        ]
        args += [f"--data.{key}={json.dumps(value)}" for key, value in self.data(number, chosen).items()]
        begun = next((one for one in find_runs(root, name) if self.is_of_round(one, number)), None)
        if begun is not None and begun.read_summary().get("after"):
            log.info(f"round {number} is trained: {begun.folder}")
            return begun
        if begun is not None and begun.last.is_file():
            args += ["--ckpt_path", str(begun.last)]
        command("fit", *args)
        return next(one for one in find_runs(root, name) if self.is_of_round(one, number))

    def is_of_round(self, run: Run, number: int) -> bool:
        """Whether a run was trained on the rows of this round in this folder."""
        mix = run_config(run)["data"].get("mix") or []
        return any(one.get("name") == str(self.rows(number).resolve()) for one in mix)

    def data(self, number: int, chosen: int) -> dict[str, Any]:
        """The settings of data for a round: the sources of the first run, and the rows of its own answers."""
        data = self.config["data"]
        rows, mix = data.get("train_rows"), data.get("mix")
        if mix is None:
            mix = [{name: data[key] for name, key in SOURCE.items() if data.get(key) is not None}]
        own: dict[str, Any] = {
            "name": str(self.rows(number).resolve()),
            "columns": {"messages": "messages"},
            "filters": {},
        }
        own["tags"] = {"open": self.tags.open, "close": self.tags.close}
        if any(one.get("weight") is not None for one in mix):
            if rows is None:
                fix = "train the first run with data.train_rows, or without weights"
                raise UserError("data.mix", None, "has weights, and data.train_rows is null", fix)
            own["weight"] = sum(one["weight"] for one in mix) * chosen / rows
        return {"mix": [*mix, own], "train_rows": None if rows is None else rows + chosen}


def command(name: str, *args: str) -> None:
    """Run a command of this program in a process of its own. A failure or a signal ends this one, too, the same way,
    also if the command was at its end and did not need to stop."""
    process = subprocess.Popen([sys.executable, str(CHECKOUT / "cli.py"), name, *args])
    stopped: list[int] = []

    def terminate(*_: Any) -> None:
        stopped.append(TERMINATED)
        process.terminate()

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        code = process.wait()
    except KeyboardInterrupt:  # the terminal sent it to both
        stopped.append(INTERRUPTED)
        code = process.wait()
    finally:
        signal.signal(signal.SIGTERM, before)
    code = code or next(iter(stopped), 0)
    if code:
        log.error(f"{name} ended with {code}; the same command goes on from there")
        raise SystemExit(code if code > 0 else 128 - code)


def described(selection: Selection) -> str:
    """What became of the answers, in one line."""
    counts = dict(selection.counts)
    head = (
        f"{counts.pop('chosen'):,} of {counts.pop('answers'):,} answers to {counts.pop('questions'):,} questions chosen"
    )
    return "; ".join([head, *(f"{number:,} {reason}" for reason, number in counts.items() if number)])
