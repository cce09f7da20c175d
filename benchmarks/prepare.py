"""Measure the preparation of rows: its speed against raw tokenizing and TRL, its memory, and the start afterwards.

    python -m benchmarks.prepare speed [--trl-python PYTHON]   # an interpreter with trl
    python -m benchmarks.prepare scale [--sizes 10000 50000 250000]

The rows of --rows (JSON lines with instruction and response) are repeated, each with a number of its own, so that no
row is a near duplicate of another. Every measurement runs in its own process, and compared measurements take turns. The
least wall and CPU seconds of all repetitions count, child processes included, because other programs on the machine
only add time; the median is shown beside them.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import count, cycle, islice
from pathlib import Path
from typing import Any

from benchmarks.real_inputs import MISSING, row_files, tokenizer_folder

ROOT = Path(__file__).resolve().parents[1]
SPLITS = ("none", "sentence", "paragraph")
AT_ONCE = 256  # texts in a batch of raw tokenizing
PACKAGES = ("tokenizers", "transformers", "datasets", "pyarrow", "numpy", "torch", "trl")

Task = dict[str, Any]
Figures = dict[str, Any]


class Clock:
    """Wall and CPU seconds of a `with` block, including child processes that have ended."""

    def __enter__(self) -> "Clock":
        self._started = time.perf_counter(), sum(os.times()[:4])
        return self

    def __exit__(self, *_: object) -> None:
        self.wall = round(time.perf_counter() - self._started[0], 3)
        self.cpu = round(sum(os.times()[:4]) - self._started[1], 3)


# Measurements, each in its own process


def raw(task: Task) -> Figures:
    """The tokenizer alone, on batches of instruction + response that were read before the clock starts."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(f"{task['tokenizer']}/tokenizer.json")
    with open(task["rows"], encoding="utf-8") as file:
        texts = [row["instruction"] + row["response"] for row in map(json.loads, file)]
    tokens = 0
    with Clock() as clock:
        for start in range(0, len(texts), AT_ONCE):
            batch = tokenizer.encode_batch_fast(texts[start : start + AT_ONCE], add_special_tokens=False)
            tokens += sum(map(len, batch))
    return {"wall": clock.wall, "cpu": clock.cpu, "tokens": tokens}


def ours(task: Task) -> Figures:
    """`prepare` as a whole: reading, parsing, splitting, tokenizing, near duplicates, Arrow, fingerprint."""
    from datamodules.prepare.cache import prepare

    module = data_module(task)
    tokenizer = module.think_tokenizer  # loaded before the clock starts, as for the others
    with Clock() as clock:
        wanted, near = module.rows_wanted, module.near_duplicate_threshold
        _, stats = prepare(module.parts(), tokenizer, wanted, near, module.cache_dir, module.num_proc)
    figures = {"kept": stats.kept, "dropped": stats.dropped, "tokens": sum(stats.tokens.values())}
    return {"wall": clock.wall, "cpu": clock.cpu, **figures}


def trl(task: Task) -> Figures:
    """TRL's `SFTTrainer._prepare_dataset`, called by the constructor: add the end token, tokenize prompt and
    completion, truncate, write Arrow. The rows are in an Arrow file before the clock starts."""
    import datasets
    from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM
    from trl import SFTConfig, SFTTrainer

    figures: Figures = {}

    class Timed(SFTTrainer):  # type: ignore[misc]
        def _prepare_dataset(self, *args: Any, **kwargs: Any) -> Any:
            with Clock() as clock:
                prepared = super()._prepare_dataset(*args, **kwargs)
            tokens = sum(map(len, prepared.with_format("numpy")["input_ids"]))
            figures.update(wall=clock.wall, cpu=clock.cpu, kept=len(prepared), tokens=tokens)
            return prepared

    def pair(row: dict[str, str]) -> dict[str, str]:
        return {
            "prompt": f"### Instruction: {row['instruction']}\n### Response: ",
            "completion": row["response"],
        }

    rows = datasets.load_dataset("json", data_files=task["rows"], split="train")
    rows = rows.map(pair, remove_columns=rows.column_names)
    tokenizer = AutoTokenizer.from_pretrained(task["tokenizer"])
    shape = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 1, "num_key_value_heads": 1, "vocab_size": len(tokenizer)}
    config = SFTConfig(
        output_dir=task["cache"], max_length=task["max_length"], dataset_num_proc=task["num_proc"], bf16=False,
        use_cpu=True, report_to="none",
    )  # fmt: skip
    Timed(Qwen2ForCausalLM(Qwen2Config(**shape, **heads)), config, train_dataset=rows, processing_class=tokenizer)
    return figures


def warm(task: Task) -> Figures:
    """From the start of the process to the first training batch, with rows that are already prepared."""
    with Clock() as imports:
        import pyarrow  # noqa: F401
        from transformers import AutoTokenizer  # noqa: F401

        import datamodules.magpie  # noqa: F401
    with Clock() as start:
        module = data_module(task)
        module.prepare_data()
        module.setup("fit")
        with Clock() as loader:
            batch = next(iter(module.train_dataloader()))
    figures = {"imports": imports.wall, "loader": loader.wall, "kept": module.stats.kept}
    return {"wall": start.wall, "cpu": start.cpu, "batch": list(batch.input_ids.shape), **figures}


def data_module(task: Task) -> Any:
    from lightning.pytorch import Trainer
    from lightning.pytorch.trainer.states import TrainerFn

    from datamodules.magpie import MagpieDataModule
    from datamodules.text.steps import StepSettings

    module = MagpieDataModule(
        task["rows"], steps=StepSettings(task["split"]), max_length=task["max_length"], train_rows=None, val_rows=None,
        num_proc=task["num_proc"], num_workers=0, cache_dir=task["cache"], tokenizer=task["tokenizer"],
    )  # fmt: skip
    module.batches_done = lambda: 0
    trainer = Trainer(accelerator="cpu", devices=1, accumulate_grad_batches=8, logger=False, enable_checkpointing=False)
    trainer.state.fn = TrainerFn.FITTING
    module.trainer = trainer
    return module


MEASURED: dict[str, Callable[[Task], Figures]] = {"raw": raw, "ours": ours, "trl": trl, "warm": warm}


def measure(what: str, task: Task, python: str = sys.executable, keep: bool = False) -> Figures:
    """Return the figures of one process, with the peak memory in MB of the process and of its largest child."""
    with tempfile.TemporaryDirectory(dir=task["scratch"]) as fresh:
        task = task if keep else task | {"cache": fresh}
        environment = {"TOKENIZERS_PARALLELISM": "false", "HF_DATASETS_CACHE": fresh, "HF_HUB_OFFLINE": "1"}
        command = [python, "-m", "benchmarks.prepare", "measure", what, json.dumps(task)]
        done = subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{what} failed:\n{done.stderr}")
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


def in_this_process(what: str, task: Task) -> None:
    """The process of `measure`: print the figures as the last line."""
    figures = MEASURED[what](task)
    for name, who in (("memory", resource.RUSAGE_SELF), ("child_memory", resource.RUSAGE_CHILDREN)):
        figures[name] = round(resource.getrusage(who).ru_maxrss / 1024)
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    print(json.dumps(figures | {"versions": versions}))


# Reports


def speed(args: argparse.Namespace, task: Task) -> None:
    rows = write_rows(args, args.copies * sum(1 for _ in real_rows(args.rows)))
    task |= {"rows": str(rows)}
    variants: dict[str, tuple[str, Task, str]] = {"raw": ("raw", {}, sys.executable)}
    variants |= {f"ours {split} 1": ("ours", {"split": split, "num_proc": 1}, sys.executable) for split in SPLITS}
    variants["ours sentence 2"] = ("ours", {"split": "sentence", "num_proc": 2}, sys.executable)
    if args.trl_python:
        # None: TRL's default, in its own process; 1 would be a pool of one process
        variants |= {f"trl {n or 1}": ("trl", {"num_proc": n}, args.trl_python) for n in (None, 2)}
    results: dict[str, list[Figures]] = {name: [] for name in variants}
    for repetition in range(args.repeat):
        for name, (what, more, python) in variants.items():
            figures = measure(what, task | more, python)
            results[name].append(figures)
            say(f"{repetition} {name}: {json.dumps(figures)} load {os.getloadavg()[0]:.1f}")
    least = {name: {key: min(f[key] for f in found) for key in ("wall", "cpu")} for name, found in results.items()}
    titles = ("wall s", "median", "CPU s", "median", "x raw", "CPU", "x TRL", "CPU")
    print(f"\n{'':18}" + "".join(f"{title:>9}" for title in titles))
    for name, found in results.items():
        medians = {key: statistics.median(f[key] for f in found) for key in ("wall", "cpu")}
        row = "".join(f"{value:9.2f}" for key in ("wall", "cpu") for value in (least[name][key], medians[key]))
        for other in ("raw", f"trl {name[-1]}"):
            if other in least:
                row += "".join(f"{least[other][key] / least[name][key]:9.2f}" for key in ("wall", "cpu"))
        print(f"{name:18}{row}")


def scale(args: argparse.Namespace, task: Task) -> None:
    for size in args.sizes:
        rows = write_rows(args, size)
        task |= {"rows": str(rows), "split": "sentence", "num_proc": 2, "cache": f"{args.scratch}/cache-{size}"}
        say(f"{size} rows, {rows.stat().st_size / 1e6:.0f} MB, load {os.getloadavg()[0]:.1f}")
        figures = measure("ours", task, keep=True)
        say(f"  prepared: {json.dumps(figures)}: {size / figures['wall']:.0f} rows/s")
        for _ in range(args.repeat):
            say(f"  warm: {json.dumps(measure('warm', task, keep=True))} load {os.getloadavg()[0]:.1f}")
        shutil.rmtree(task["cache"])


def real_rows(files: list[Path], longest: int = 10**9) -> list[dict[str, str]]:
    rows = [json.loads(line) for file in files for line in file.open(encoding="utf-8")]
    return [row for row in rows if len(row["response"]) < longest]


def write_rows(args: argparse.Namespace, rows: int) -> Path:
    """Write `rows` rows to one file, each with a number of its own in its instruction."""
    path = Path(args.scratch) / "rows.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for number, row in islice(zip(count(), cycle(real_rows(args.rows, args.longest))), rows):
            instruction = f"Problem {number}. {row['instruction']}"
            file.write(json.dumps({"instruction": instruction, "response": row["response"]}) + "\n")
    return path


def say(text: str) -> None:
    print(text, flush=True)


def main() -> None:
    if sys.argv[1:2] == ["measure"]:
        in_this_process(sys.argv[2], json.loads(sys.argv[3]))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["speed", "scale"])
    parser.add_argument("--rows", type=Path, nargs="+", default=row_files())
    parser.add_argument("--tokenizer", type=Path, default=tokenizer_folder())
    parser.add_argument("--trl-python", help="an interpreter with trl; without it TRL is not measured")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--copies", type=int, default=4, help="copies of the rows for speed")
    parser.add_argument("--longest", type=int, default=10**9, help="drop responses with this many characters or more")
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 50_000, 250_000])
    parser.add_argument("--max-length", type=int, default=4096)
    args = parser.parse_args()
    if not args.rows or not args.tokenizer:
        sys.exit(MISSING)
    with tempfile.TemporaryDirectory() as args.scratch:
        tokenizer = Path(args.scratch) / "tokenizer"
        shutil.copytree(args.tokenizer, tokenizer, copy_function=shutil.copyfile)
        if not (tokenizer / "config.json").exists():  # a model folder needs a config
            (tokenizer / "config.json").write_text('{"model_type": "qwen2"}')
        say(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
        task = {"tokenizer": str(tokenizer), "max_length": args.max_length, "scratch": args.scratch}
        {"speed": speed, "scale": scale}[args.what](args, task)


if __name__ == "__main__":
    main()
