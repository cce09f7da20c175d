"""Does a run get better by its own right answers? python -m benchmarks.self_training --to FOLDER

For each seed the embedded model is trained on 500 rows. Then one arm learns in rounds from its own right answers to new
questions, with the 500 rows beside them (`self_train`). The other arm trains on the 500 rows only, in as many more
epochs as cost the CPU seconds of the rounds, asking included. All are asked the same held-out questions, and the arms
are compared in pairs. The same command goes on with the first seed that is not finished.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from datamodules.rows.builtin import is_held_out, rows
from hub import CHECKOUT
from lightning_modules.evaluation.statistics import clustered_difference, sign_flips
from lightning_modules.run.folder import Run, newest_run

ASKED = 20_000  # the seed of the rows whose questions are asked. Training rows have other seeds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", type=Path, required=True, help="folder of runs, answers and figures")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--questions", type=int, default=500, help="asked in each round")
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--test", type=int, default=400, help="held-out questions")
    parser.add_argument("--train_rows", type=int, default=500)
    parser.add_argument("--epochs", type=int, default=6, help="of the first fit")
    parser.add_argument("--round_epochs", type=int, default=3, help="of the fit of each round")
    given = parser.parse_args()
    given.to = given.to.resolve()
    given.to.mkdir(parents=True, exist_ok=True)
    overlay = {"trainer": {"max_epochs": given.round_epochs}}
    (given.to / "rounds.yaml").write_text(json.dumps(overlay), encoding="utf-8")
    write_task(given.to / "questions.jsonl", ASKED, given.questions, held_out=False)
    write_task(given.to / "test.jsonl", ASKED + 1, given.test, held_out=True)
    results = [one_seed(given, seed) for seed in range(1, given.seeds + 1)]
    print_results(results)
    return 0


def write_task(path: Path, seed: int, number: int, held_out: bool) -> None:
    """Write questions with answers, no question twice."""
    found: dict[str, str] = {}
    for row in rows(seed):
        if is_held_out(row) == held_out:
            found.setdefault(row["instruction"], row["response"].rpartition("</think>")[2].strip())
        if len(found) == number:
            break
    lines = [json.dumps({"instruction": question, "answer": answer}) for question, answer in found.items()]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def one_seed(given: Any, seed: int) -> dict[str, Any]:
    """The figures of a seed, from a file if they are there."""
    folder, figures = given.to / f"seed-{seed}", given.to / f"seed-{seed}.json"
    if figures.is_file():
        found: dict[str, Any] = json.loads(figures.read_text(encoding="utf-8"))
        return found
    settings = [f"--seed_everything={seed}", f"--data.seed={seed}", f"--data.train_rows={given.train_rows}"]
    settings += ["--data.val_rows=100", "--model.evaluation.rows=0", f"--run.root={folder}"]
    demo = ["--config", "configs/demo.yaml", *settings]
    first, first_cost = fit(folder, "first", [*demo, f"--trainer.max_epochs={given.epochs}"])
    seconds = {"first": first_cost}
    before = cpu_seconds()
    rounds = ["--task", str(given.to / "questions.jsonl"), "--run", str(first.folder), "--rounds", str(given.rounds)]
    rounds += ["--samples", str(given.samples), "--seed", str(seed), "--overlay", str(given.to / "rounds.yaml")]
    cli("self_train", *rounds)
    seconds["rounds"] = cpu_seconds() - before
    trained = [newest_run(str(folder), f"first-round-{k}") for k in range(1, given.rounds + 1)]
    more = max(1, round(given.epochs * seconds["rounds"] / seconds["first"]))
    longer = [*demo, f"--trainer.max_epochs={more}", f"--model.start={first.folder.resolve()}"]
    control, seconds["more epochs"] = fit(folder, "more-epochs", longer)
    arms = {"first": first, **{f"round {k}": run for k, run in enumerate(trained, 1)}, "more epochs": control}
    right = {
        name: ask(run, given.to / "test.jsonl", folder / f"{name.replace(' ', '-')}.jsonl")
        for name, run in arms.items()
    }
    result = {"seed": seed, "epochs": more, "seconds": seconds, "right": right}
    figures.write_text(json.dumps(result), encoding="utf-8")
    return result


def fit(folder: Path, name: str, args: list[str]) -> tuple[Run, float]:
    before = cpu_seconds()
    cli("fit", *args, f"--run.name={name}")
    return newest_run(str(folder), name), cpu_seconds() - before


def cpu_seconds() -> float:
    """CPU seconds of all commands that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def cli(command: str, *args: str) -> None:
    started = time.monotonic()
    subprocess.run([sys.executable, "cli.py", command, *args], cwd=CHECKOUT, check=True)
    print(f"{command}: {time.monotonic() - started:.0f} s", flush=True)


def ask(run: Run, task: Path, to: Path) -> dict[str, bool]:
    """{question: whether the run's greedy answer is right}."""
    cli("evaluate", "--task", str(task), "--run", str(run.folder), "--to", str(to))
    lines = [json.loads(line) for line in to.read_text(encoding="utf-8").splitlines()]
    return {one["id"]: one["right"] for one in lines if "right" in one}


def print_results(results: list[dict[str, Any]]) -> None:
    """A table of right answers, then each pair of arms over all seeds: a question counts once, with all its seeds."""
    arms = list(results[0]["right"])
    print("| seed | " + " | ".join(arms) + " | CPU s: first, rounds, more epochs |")
    print("|---|" + "---|" * (len(arms) + 1))
    for one in results:
        shares = [f"{100 * sum(one['right'][arm].values()) / len(one['right'][arm]):.1f} %" for arm in arms]
        times = ", ".join(f"{value:.0f}" for value in one["seconds"].values())
        print(f"| {one['seed']} | {' | '.join(shares)} | {times} ({one['epochs']} epochs) |")
    last = arms[-2]
    for better, other in ((last, "first"), ("more epochs", "first"), (last, "more epochs")):
        differences = [
            sum(int(one["right"][better][question]) - int(one["right"][other][question]) for one in results)
            for question in results[0]["right"][other]
        ]
        mean = 100 * sum(differences) / len(differences) / len(results)
        low, high = (100 * bound for bound in clustered_difference([value / len(results) for value in differences]))
        chance = sign_flips(differences)
        print(f"{better} against {other}: {mean:+.1f} points ({low:+.1f} to {high:+.1f}), p {chance:.2g}")


if __name__ == "__main__":
    sys.exit(main())
