"""The small world that is tortured: a tiny base, rows, prepared rows and runs; and the results that must be reached.

Its folders are made once and copied for each case: `fresh` has only inputs, `stopped` also a run that was killed in its
middle, `trained` a complete run. All commands run inside such a folder.
"""

import csv
import functools
import hashlib
import itertools
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.torture.file_operations import VARYING, Operation, kill_at, note_in, noted_in
from tests.torture.forked import Child, Ended, run
from tests.torture.inputs import break_weights, write_inputs

FIT = ("fit", "--config", "config.yaml")
TENSORBOARD = (1, 2, 3, 50, 150)  # operations on its files that count, of some hundreds
RESUME = (*FIT, "--ckpt_path", "last")
GENERATE = ("generate", "--jsonl", "--max_new_tokens", "6", "--prompts", "prompts.txt")
EVALUATE = ("evaluate", "--task", "questions.jsonl", "--max_new_tokens", "6", "--to", "out/answers.jsonl")
PREVIEW = ("preview", "--config", "config.yaml", "--jsonl", "rows_seen.jsonl", "--html", "rows_seen.html")
THIRD_CHECKPOINT = Operation("rename", "runs/torture/#-#-#_#-#-#/checkpoints/last.ckpt", 3)
Result = Callable[[Path, Ended], Any]


@dataclass(frozen=True)
class Command:
    """A command, and the result that counts: what two equal runs of it have in common."""

    name: str
    args: tuple[str, ...]
    start: str  # the folder of the world in which it begins
    result: Result


def trained_result(folder: Path, ended: Ended) -> dict[str, Any]:
    return result_of_run(newest_run(folder))


def result_of_run(run_folder: Path) -> dict[str, Any]:
    """The weights at the end of training, its step and that of the best checkpoint, and the losses of all steps."""
    from lightning_modules.checkpoints.checkpoint_file import read_checkpoint

    last = read_checkpoint(run_folder / "checkpoints" / "last.ckpt")
    rows = csv.DictReader((run_folder / "metrics.csv").open())
    return {
        "weights": {name: _sum(tensor.numpy().tobytes()) for name, tensor in sorted(last["state_dict"].items())},
        "step": last["global_step"],
        "best step": read_checkpoint(run_folder / "checkpoints" / "best.ckpt")["global_step"],
        "losses": {int(row["step"]): row["train/loss"] for row in rows if row["train/loss"]},
    }


def _sum(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def difference(found: Any, right: Any) -> str:
    """What differs between two results, in short; empty if they are equal."""
    if found == right:
        return ""
    if isinstance(found, dict) and isinstance(right, dict):
        keys = [key for key in {**found, **right} if found.get(key) != right.get(key)]
        inner = difference(found.get(keys[0]), right.get(keys[0]))
        return f"{keys[0]}: {inner}" + (f" (and {len(keys) - 1} more)" if keys[1:] else "")
    return f"{str(found)[:80]!r} instead of {str(right)[:80]!r}"


def printed(folder: Path, ended: Ended) -> Any:
    return ended.out


def files_of(*places: str) -> Result:
    """The content of files: all of a folder, but not the model card, which names the run, and the tokenizer's config,
    whose unknown keys are passed on."""

    def result(folder: Path, ended: Ended) -> Any:
        found = [path for place in places for path in sorted(folder.glob(place)) if path.is_file()]
        kept = [path for path in found if path.name not in ("README.md", "tokenizer_config.json")]
        here = str(folder.resolve()).encode()  # an adapter names its base by an absolute path
        return {VARYING.sub("#", path.name): _sum(path.read_bytes().replace(here, b"#")) for path in kept}

    return result


def answers_of_evaluation(folder: Path, ended: Ended) -> Any:
    """The answers, in any order, once the summary beside them says that they are complete. Not the header, which names
    the checkpoint: without a best one, the last one is asked."""
    if not (folder / "out" / "answers.summary.json").is_file():
        return {}
    return sorted((folder / "out" / "answers.jsonl").read_text().splitlines()[1:])


COMMANDS = {
    one.name: one
    for one in (
        Command("fit", FIT, "fresh", trained_result),
        Command("resume", RESUME, "stopped", trained_result),
        Command("validate", ("validate",), "trained", printed),
        Command("test", ("test",), "trained", printed),
        Command("predict", ("predict",), "trained", files_of("runs/*/*/predictions-*.jsonl")),
        Command("generate", GENERATE, "trained", printed),
        Command("evaluate", EVALUATE, "trained", answers_of_evaluation),
        Command("export", ("export", "--to", "out/export"), "trained", files_of("out/export/*")),
        Command("adapter", ("export", "--adapter", "--to", "out/adapter"), "trained", files_of("out/adapter/*")),
        Command("gguf", ("export", "--gguf", "F16", "--to", "out/gguf"), "trained", files_of("out/gguf/*")),
        Command("report", ("report", "--to", "report.html"), "trained", files_of("report.html")),
        Command("preview", PREVIEW, "fresh", files_of("rows_seen.jsonl")),
        Command("estimate", ("estimate", "--config", "config.yaml"), "fresh", printed),
        Command("replay", ("replay", "step.replay"), "trained", printed),
    )
}


class World:
    """The folders, and the results of undamaged commands, each made when it is first wanted."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._names = itertools.count()
        self._results: dict[str, Any] = {}

    @functools.cached_property
    def fresh(self) -> Path:
        folder = self.root / "fresh"
        folder.mkdir()
        ended = Child(functools.partial(write_inputs, folder), folder).end()
        assert ended.code == 0, ended.said
        return folder

    @functools.cached_property
    def stopped(self) -> Path:
        """Killed before the checkpoint of step 6 of 8 gets its name; the one of step 4 is there."""
        return self._made(
            "stopped", FIT, kill_at, Operation("rename", "runs/torture/#-#-#_#-#-#/checkpoints/last.ckpt", 3)
        )

    @functools.cached_property
    def trained(self) -> Path:
        folder = self._made("trained", FIT)
        broken = run((*FIT, "--run.root", "broken", "--model.evaluation.rows", "0"), folder, break_weights)
        (replay,) = folder.glob("broken/*/*/nonfinite/*.replay")
        shutil.copytree(replay.parent, newest_run(folder) / "nonfinite")
        shutil.rmtree(folder / "broken")
        assert broken.code == 2, broken.said
        ended = run(("export", "--to", "given/export"), folder)
        assert ended.code == 0, ended.said
        return folder

    def _made(self, name: str, args: tuple[str, ...], before: Any = None, when: Operation | None = None) -> Path:
        folder = Path(shutil.copytree(self.fresh, self.root / name))
        ended = run(args, folder, before(folder, when) if before else None)
        assert ended.code == (-9 if before else 0), ended.said
        return folder

    @contextmanager
    def copy(self, start: str) -> Iterator[Path]:
        """A copy of a folder of the world, for one case."""
        folder = Path(tempfile.mkdtemp(prefix=f"{start}-", dir=self.root))
        try:
            yield Path(shutil.copytree(getattr(self, start), folder / "here"))
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def right(self, name: str, *more: str) -> Any:
        """The result of an undamaged command."""
        one = COMMANDS[name]

        def reach() -> Any:
            with self.copy(one.start) as folder:
                ended = run(arguments(one, folder, *more), folder)
                assert ended.code == 0, ended.said
                return one.result(folder, ended)

        return self.once(" ".join((name, *more)), reach)

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        """What `make` returned when it was first wanted under this name."""
        if name not in self._results:
            self._results[name] = make()
        return self._results[name]

    def complete(self) -> None:
        """Make everything, before processes are forked that would each make their own."""
        for name in COMMANDS:
            self.right(name)
        assert self.seconds and self.trained and self.stopped

    @functools.cache  # noqa: B019 (one world)
    def operations(self, name: str) -> list[Operation]:
        """The file operations of a command, in their order. Of TensorBoard's many, only some."""
        one, note = COMMANDS[name], self.root / "note"
        with self.copy(one.start) as folder:
            ended = run(arguments(one, folder), folder, note_in(folder, note))
        assert ended.code == 0, ended.said
        found = noted_in(note)
        note.unlink()
        return [when for when in found if "tfevents" not in when.name or when.nth in TENSORBOARD]

    @functools.cached_property
    def seconds(self) -> float:
        """The duration of a fit."""
        with self.copy("fresh") as folder:
            return run(FIT, folder).seconds

    def leftovers(self, folder: Path) -> list[str]:
        """Temporary files and locks below a folder that a complete run does not leave. A run without a checkpoint is
        not looked into: it is never continued."""
        usual = {VARYING.sub("#", path.name) for path in _hidden(self.trained)}
        left = [path for path in _hidden(folder) if VARYING.sub("#", path.name) not in usual]
        return [str(path.relative_to(folder)) for path in left]


def _hidden(folder: Path) -> list[Path]:
    dead = [run for run in folder.glob("runs/*/*") if not (run / "checkpoints" / "last.ckpt").exists()]
    found = [p for p in folder.rglob("*") if p.name[0] == "." or p.suffix in (".tmp", ".lock", ".kept")]
    return [p for p in found if p.name != ".cache" and not any(run in p.parents for run in dead)]


def arguments(one: Command, folder: Path, *more: str) -> tuple[str, ...]:
    """The arguments of a command in this folder."""
    replay = [str(path.relative_to(folder)) for path in folder.glob("runs/*/*/nonfinite/*.replay")]
    return (*(replay[0] if arg == "step.replay" and replay else arg for arg in one.args), *more)


def newest_run(folder: Path) -> Path:
    """The newest run that has a checkpoint."""
    runs = sorted(folder.glob("runs/*/*/checkpoints/last.ckpt"), key=lambda path: path.parent.parent.name)
    assert runs, "no run has a checkpoint"
    return runs[-1].parent.parent
