"""The recipe word for word, on a hub on loopback where its ids resolve: Qwen's vocabulary, answers with R1's shapes."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from lightning_modules.checkpoints.checkpoint_file import read_checkpoint
from tests.conftest import ROOT

CONFIGS = ROOT / "configs"


# Several commands in one process, for which the hub is the hub; prints exit code, stdout and stderr of each
COMMANDS = """
import io, json, sys
from contextlib import redirect_stderr, redirect_stdout
from cli import main
done = []
for args in json.loads(sys.argv[1]):
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        code = main(args)
    done.append((args, code, out.getvalue(), err.getvalue()))
print(json.dumps(done))
"""
Done = subprocess.CompletedProcess[str]


def run(env: dict[str, str], folder: Path, *commands: list[str]) -> list[Done]:
    process = subprocess.run(
        [sys.executable, "-c", COMMANDS, json.dumps(commands)],
        cwd=folder, env=env | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    return [subprocess.CompletedProcess(*done) for done in json.loads(process.stdout)]


def recipe(names: Sequence[str], *more: str) -> list[str]:
    """Two optimizer steps of 8 rows on a CPU; evaluation is cut short, since random weights never end an answer."""
    files = [part for name in (*names, "hardware/cpu") for part in ("--config", str(CONFIGS / f"{name}.yaml"))]
    shorter = ("--data.val_rows", "16", "--model.evaluation.decoding.max_new_tokens", "16")
    return ["fit", *files, *shorter, "--trainer.accumulate_grad_batches", "2", "--trainer.max_steps", "2", *more]


def only_run(folder: Path, name: str) -> Path:
    (found,) = (folder / "runs" / name).iterdir()
    return found


@pytest.fixture
def env(hub_env: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return hub_env | {"HOME": str(tmp_path_factory.mktemp("home"))}


def test_multi_think_from_fit_to_export(env: dict[str, str], tmp_path: Path) -> None:
    fitted, validated = run(env, tmp_path, recipe(("multi_think",)), ["validate"])
    assert fitted.returncode == 0, fitted.stderr
    # The hub has 550 rows. A shortage is printed and is not an error
    assert "data.train_rows: 10,000 requested" in fitted.stderr
    assert "longer than data.max_length" in fitted.stderr
    assert "\r" not in fitted.stderr, "a progress bar without a terminal"
    assert "empty response" in fitted.stderr
    folder = only_run(tmp_path, "multi_think")
    checkpoint = read_checkpoint(folder / "checkpoints" / "last.ckpt")
    assert checkpoint["global_step"] == 2
    assert sum(name.endswith(".embeddings") for name in checkpoint["state_dict"]) == 2  # untied: embedding and head
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["after"]["loss_thought"] < summary["before"]["loss_thought"]

    assert validated.returncode == 0, validated.stderr
    assert f"{summary['after']['loss']:.4f}" in validated.stdout

    resumed, exported, generated = run(
        env, tmp_path,
        recipe(("multi_think",), "--trainer.max_steps", "3", "--ckpt_path", "last"),
        ["export", "--to", "model"],
        ["generate", "--prompt", "Hi", "--jsonl", "--max_new_tokens", "8"],
    )  # fmt: skip
    assert resumed.returncode == 0, resumed.stderr
    assert read_checkpoint(folder / "checkpoints" / "last.ckpt")["global_step"] == 3
    assert only_run(tmp_path, "multi_think") == folder

    assert exported.returncode == 0, exported.stderr
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert (config["vocab_size"], config["dtype"]) == (151_936, "float32")
    assert generated.returncode == 0, generated.stderr
    assert json.loads(generated.stdout)["finished"] is False


def test_single_think_and_a_tied_model_by_its_id_alone(env: dict[str, str], tmp_path: Path) -> None:
    (fitted,) = run(env, tmp_path, recipe(("multi_think", "single_think"), "--model.name", "Qwen/Qwen2-1.5B-Instruct"))
    assert fitted.returncode == 0, fitted.stderr
    checkpoint = read_checkpoint(only_run(tmp_path, "single_think") / "checkpoints" / "last.ckpt")
    assert checkpoint["global_step"] == 2
    assert sum(name.endswith(".embeddings") for name in checkpoint["state_dict"]) == 1  # tied: one pair serves both


def test_the_id_that_circulates(env: dict[str, str], tmp_path: Path) -> None:
    (fitted,) = run(env, tmp_path, recipe(("multi_think",), "--model.name", "Qwen/Qwen1.5-1.8B-Instruct"))
    assert fitted.returncode == 2
    assert "Use Qwen/Qwen1.5-1.8B-Chat." in fitted.stderr
    assert len(fitted.stderr.strip().splitlines()) == 1
