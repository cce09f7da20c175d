"""Does a real model learn to think, and which settings earn it? Studies of configs/smollm2.yaml on your rows.

    python -m benchmarks.learning --rows FILE.jsonl --out FOLDER

Every run is `cli.py fit`, then `cli.py evaluate` on held-out questions. After an interruption the same command
continues. Finished runs are not repeated, more seeds can be added, and no result is overwritten.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.learning.jobs import cpu_seconds, run_cli, run_jobs
from benchmarks.learning.peer_runs import PeerRun
from benchmarks.learning.picture import bars_of, first_choice, picture
from benchmarks.learning.report import Arms, Table, answer_table, cost_table, curve_table, loss_table, setting, write
from benchmarks.learning.rows import Pool, read_pool
from benchmarks.learning.runs import Planned, answers_of
from benchmarks.learning.studies import PEER_STUDY, STUDIES, Study
from benchmarks.real_inputs import row_files
from disk import write_file
from errors import UserError
from hub import local_folder

BASE = "HuggingFaceTB/SmolLM2-135M-Instruct"


def parse(args: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.learning", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [study.name for study in STUDIES]
    parser.add_argument("--rows", type=Path, nargs="+", help="JSON lines with instruction and response")
    parser.add_argument("--base", default=BASE, help="folder or hub id of the base model")
    parser.add_argument("--studies", nargs="+", choices=names, default=names, help="by default all")
    parser.add_argument("--arms", nargs="+", metavar="NAME", help="of these studies; by default all")
    parser.add_argument("--seeds", type=int, default=1, help="number of seeds, from 1; more can be added later")
    parser.add_argument("--jobs", type=int, default=1, help="runs at once; the CPU cores are shared among them")
    parser.add_argument("--trl-python", type=Path, help="an interpreter with TRL, to compare with it; see README.md")
    parser.add_argument("--picture", type=Path, help="file for a picture of the answers to the test questions, as SVG")
    parser.add_argument("--out", type=Path, required=True, help="folder of runs and results")
    return parser.parse_args(args)


def benchmark(given: argparse.Namespace) -> int:
    base = str(local_folder(given.base) or given.base)
    for name in ("seeds", "jobs"):
        if getattr(given, name) < 1:
            raise UserError(f"--{name}", getattr(given, name), "is below 1", "give 1 or more")
    studies = [study for study in STUDIES if study.name in given.studies]
    check_arms(studies, given.arms)
    out = given.out.resolve()
    files = given.rows or row_files()
    prepare_folder(out, files, base)
    pool = read_pool(files, base, out, run_cli)
    planned = [
        Planned(study, arm, seed, out)
        for study in studies
        for seed in range(1, given.seeds + 1)  # seed by seed, so that a stopped benchmark has complete comparisons
        for arm in study.arms
        if given.arms is None or arm.name in given.arms
    ]
    failed = run_all(planned, base, pool, given.jobs)
    peers = peer_runs(planned, given.trl_python)
    failed += run_jobs([one.commands(base, pool) for one in peers if given.trl_python and not one.done()])
    known = {
        "command": shlex.join(["python", "-m", "benchmarks.learning", *sys.argv[1:]]), "base": base,
        "questions": len(pool.test), "cpu_seconds": cpu_seconds(out / "logs"),
    }  # fmt: skip
    untrained = ask_base(planned)
    report(out, studies, planned, peers, untrained, known)
    if given.picture:
        draw(given.picture, planned, peers, untrained)
    for error in failed:
        print(f"error: {error}", file=sys.stderr)
    return 1 if failed else 0


def peer_runs(planned: Sequence[Planned], python: Path | None) -> list[PeerRun]:
    """Return TRL's runs beside those of the first arm that is asked, on the same rows."""
    first = next((one.arm for one in planned if one.study.name == PEER_STUDY), None)
    return [PeerRun(one, tokens, python) for one in planned if one.study.name == PEER_STUDY and one.arm is first
            for tokens in (False, True)]  # fmt: skip


def check_arms(studies: Sequence[Study], names: Sequence[str] | None) -> None:
    known = [arm.name for study in studies for arm in study.arms]
    for name in names or []:
        if name not in known:
            fix = f"choose from {', '.join(map(repr, known))}"
            raise UserError("--arms", name, "is not an arm of these studies", fix)


def prepare_folder(out: Path, files: Sequence[Path], base: str) -> None:
    """Make the folder. Raise UserError if it belongs to another benchmark."""
    known = {"base": base, "files": [str(file.resolve()) for file in files]}
    settings = out / "settings.json"
    if settings.exists():
        before = json.loads(settings.read_text(encoding="utf-8"))
        for key, value in known.items():
            if before.get(key) != value:
                problem = f"was made with {key} {before.get(key)}, not {value}"
                raise UserError("--out", out, problem, "give a new folder")
        return
    if out.exists() and any(out.iterdir()):
        raise UserError("--out", out, "is not empty and does not belong to this benchmark", "give a new folder")
    for name in ("rows", "logs", "answers", "peers"):
        (out / name).mkdir(parents=True, exist_ok=True)
    settings.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")


def run_all(planned: Sequence[Planned], base: str, pool: Pool, at_once: int) -> list[UserError]:
    """Run what is missing. Return the errors of the runs that failed; the others go on."""
    missing = [one for one in planned if not one.done()]
    console = Console(stderr=True)
    said: set[str] = set()
    with Progress(TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), console=console) as bar:
        task = bar.add_task("runs", total=len(missing))

        def watch() -> None:
            for one in missing:
                if one.name not in said and one.done():
                    said.add(one.name)
                    summary = one.trained().read_summary()  # type: ignore[union-attr]
                    seconds = summary["training"]["train_seconds"]
                    losses = f"loss {summary['before']['loss']:.3f} -> {summary['after']['loss']:.3f}"
                    console.print(f"{one.name}: {losses}, {seconds:.0f} s")
            bar.update(task, completed=len(said), description=f"{len(said)} of {len(missing)} runs")

        return run_jobs([one.commands(base, pool, torch.cuda.is_available()) for one in missing], at_once, watch)


def ask_base(planned: Sequence[Planned]) -> dict[str, Any] | None:
    """Ask the untrained model the test questions, once: it has the template and the tags of every arm."""
    asking = [one for one in planned if one.study.asks and one.done()]
    if not asking:
        return None
    known = (one.answers.with_name(f"{one.answers.stem}-against.jsonl") for one in asking)
    file = next((path for path in known if path.is_file()), None)
    if file is None:
        one = asking[0]
        run_cli([*one.asking(), "--against", "base"], one.folder / "logs" / "base.log")
        file = one.answers.with_name(f"{one.answers.stem}-against.jsonl")
    return answers_of(file)


def report(
    out: Path,
    studies: Sequence[Study],
    planned: Sequence[Planned],
    peers: Sequence[PeerRun],
    untrained: dict[str, Any] | None,
    known: dict[str, Any],
) -> None:
    """Print the tables of all finished runs and write them, if there are any."""
    tables: list[Table] = []
    results = {one.name: found for one in planned if (found := one.read()) is not None}
    for study in studies:
        arms: Arms = {
            arm.name: {one.seed: results[one.name] for one in planned if one.study is study and one.arm is arm
                       and one.name in results}
            for arm in study.arms
        }  # fmt: skip
        arms = {name: found for name, found in arms.items() if found}
        if not arms:
            continue
        own = "".join(f", {arm.name}: {arm.tokens:,}" for arm in study.arms if arm.tokens and arm.name in arms)
        tokens = f"after {study.tokens:,} supervised tokens{own}"
        tables.append(loss_table(f"{study.question} Loss {tokens}", arms))
        if study.validations > 1:
            tables.append(curve_table(f"{study.question} Validation loss by optimizer step", arms))
        beside = arms_of_peers(peers) if study.name == PEER_STUDY else {}
        if beside:
            tables.append(cost_table("Beside TRL, on the rows of the first arm", {**arms, **beside}))
        if study.asks:
            tables.append(answer_table(f"{study.question} Answers {tokens}", {**arms, **beside}, untrained))
    for table in tables:
        table.show()
    if tables:
        known |= {"setting": setting(list(results.values())), "base_answers": untrained, "runs": results}
        print(f"written to {write(out, tables, known)} and .md", file=sys.stderr)


def draw(path: Path, planned: Sequence[Planned], peers: Sequence[PeerRun], untrained: dict[str, Any] | None) -> None:
    """Write the picture of all arms that were asked. Raise UserError if there is none."""
    arms: dict[str, dict[int, Any]] = {}
    for one in (one for one in planned if one.study.asks):
        if (result := one.read()) is not None:
            arms.setdefault(one.arm.name, {})[one.seed] = result
    if untrained is None:
        raise UserError("--picture", path, "has no arm to show", "choose a study that asks questions, and let it end")
    shown: Arms = {"the base": {0: {"answers": untrained}}, **arms, **arms_of_peers(peers)}
    bars = [bars_of(name, arm) for name, arm in shown.items()]
    write_file(path, picture(bars, first_choice(untrained)))


def arms_of_peers(peers: Sequence[PeerRun]) -> Arms:
    found: dict[str, dict[int, Any]] = {}
    for one in peers:
        if (result := one.read()) is not None:
            found.setdefault(one.arm, {})[one.ours.seed] = result
    return found


def main(args: Sequence[str] | None = None) -> int:
    """Return the exit code: 0, 1 if a run failed, 2 after a UserError."""
    try:
        return benchmark(parse(args))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
