"""fit, validate, test, predict, generate and export, as a user types them."""

import csv
import json
import re
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from cli import main
from lightning_modules.checkpoints.checkpoint_file import read_checkpoint
from lightning_modules.checkpoints.content import CONTENT_KEY
from lightning_modules.evaluation.failures import LABELS as FAILURES
from tests.conftest import ROOT


def summary(run: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run / "summary.json").read_text())
    return content


def test_a_run_leaves_all_that_was_promised(in_trained: Path) -> None:
    files = {path.relative_to(in_trained).as_posix() for path in in_trained.rglob("*") if path.is_file()}
    assert {
        "config.yaml",
        "environment.json",
        "metrics.csv",
        "samples.md",
        "summary.json",
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
    } <= files
    assert any("tfevents" in name for name in files)
    config = yaml.safe_load((in_trained / "config.yaml").read_text())
    assert config["data"]["train_rows"] == 64
    assert config["ckpt_path"] is None
    samples = (in_trained / "samples.md").read_text()
    assert samples.count("\n## Step ") + 1 == 4  # before, after each of two epochs, and of the best at the end
    first = re.findall(r"the same at each validation\n\n#### Row (\d+) .*?#### Row (\d+) ", samples, re.DOTALL)
    assert first == [("0", "1")] * 4  # so that one row can be followed through the training
    counts = re.findall(r"^(\d+) questions: (\d+) right, (\d+) wrong, (\d+) cut off", samples, re.MULTILINE)
    assert len(counts) == 4 and all(int(one[0]) == sum(map(int, one[1:])) == 8 for one in counts)
    assert "### Instruction: " in samples


def test_the_config_of_a_run_has_every_setting_and_starts_the_same_run_again(
    in_trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", "--config", str(in_trained / "config.yaml"), "--print_config"]) == 0
    again = yaml.safe_load(capsys.readouterr().out)
    assert again == yaml.safe_load((in_trained / "config.yaml").read_text())
    assert again["model"]["lora"]["rank"] == 32 and again["data"]["mix"] is None and "max_time" in again["trainer"]


def test_metrics_are_logged_by_step_and_role(in_trained: Path) -> None:
    rows = list(csv.DictReader((in_trained / "metrics.csv").open()))
    steps = [int(row["step"]) for row in rows if row["train/loss"]]
    assert steps == [1, 2, 3, 4]
    assert all(
        row["lr"] and row["train/loss_thought"] and row["train/loss_tag_open"] for row in rows if row["train/loss"]
    )
    assert [int(row["step"]) for row in rows if row["val/loss"]] == [0, 2, 4]


def test_the_summary_holds_what_the_table_shows(in_trained: Path) -> None:
    content = summary(in_trained)
    for figures in (content["before"], content["after"]):
        assert {"loss", "perplexity", "loss_thought", "loss_answer", "think_format", *FAILURES, "answer_match"} <= set(
            figures
        )
        assert figures["cut"] >= figures["cut_in_thought"] and figures["baseline_frequent"] >= 1 / 8
        assert figures["answered"] == 8
    assert content["after"]["loss"] < content["before"]["loss"]
    assert content["before"]["think_format"] == 0
    assert content["training"]["optimizer_steps"] == 4
    assert content["training"]["supervised_tokens_trained"] == 2 * content["data"]["supervised_tokens"]["train"]
    assert content["data"]["kept"] == {"train": 64, "val": 16, "test": 8}
    assert all(content["data"]["identity"]["rows"][split] for split in ("train", "val"))  # digests


def test_the_summary_counts_all_of_training_where_the_best_checkpoint_is_an_early_one(
    in_tmp: Path, fit: Callable[..., int]
) -> None:
    assert fit("--model.optim.lr", "0.9", "--trainer.gradient_clip_val", "null") == 0
    (run,) = (in_tmp / "runs" / "demo").iterdir()
    best, last = (read_checkpoint(run / "checkpoints" / f"{name}.ckpt")["global_step"] for name in ("best", "last"))
    assert best < last == 4
    assert summary(run)["training"]["optimizer_steps"] == 4


def test_a_checkpoint_holds_what_is_trained_and_nothing_of_the_base(in_trained: Path) -> None:
    path = in_trained / "checkpoints" / "last.ckpt"
    content = read_checkpoint(path)
    names = set(content["state_dict"])
    assert all("lora_" in name or name.endswith(".embeddings") for name in names)
    assert sum(name.endswith(".embeddings") for name in names) == 1  # tied
    assert all(tensor.dtype == torch.float32 for tensor in content["state_dict"].values())
    assert content[CONTENT_KEY]["base"] == "assets/tiny-qwen"
    assert content["optimizer_states"] and content["lr_schedulers"] and content[CONTENT_KEY]["train_loss"]
    assert content[CONTENT_KEY]["seed"] == 1  # of dropout, the one thing that is random in a step
    assert (
        content[CONTENT_KEY]["resume_position"]["epoch"],
        content[CONTENT_KEY]["resume_position"]["global_step"],
    ) == (2, 4)
    assert {"weights", "tokens", "config", "lora.rank"} <= set(content[CONTENT_KEY]["identity"])
    assert {"data.template", "data.source", "data.seed", "rows"} <= set(content[CONTENT_KEY]["data"])
    assert "hyper_parameters" not in content
    numbers = sum(tensor.numel() for tensor in content["state_dict"].values())
    assert path.stat().st_size < 4 * numbers * 3.2  # the tensors and AdamW's two moments


def test_validate_without_arguments_measures_the_newest_runs_best(
    in_trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["validate"]) == 0
    table = capsys.readouterr().out
    assert f"{summary(in_trained)['after']['loss']:.4f}" in table
    assert "8 held-out rows answered" in table
    assert (in_trained.parents[1] / "demo").is_dir()
    assert len(list(in_trained.parent.iterdir())) == 1  # validating makes no run


def test_fit_keeps_which_questions_were_right_and_validate_compares_with_them(
    in_trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = summary(in_trained)
    assert len(kept["right_before"]) == 8 and kept["right_before"].keys() == kept["right_after"].keys()
    for when in ("before", "after"):
        assert sum(kept[f"right_{when}"].values()) / 8 == kept[when]["answer_match"]
    questions = list(kept["right_after"])
    changed = {question: not kept["right_after"][question] for question in questions[:3]}  # as if these had changed
    path = in_trained / "summary.json"
    path.write_text(json.dumps(kept | {"right_before": kept["right_after"] | changed}))
    assert main(["validate"]) == 0
    out = capsys.readouterr().out
    gained = sum(not right for right in changed.values())
    assert "before" in out and "after" in out and "95 % interval" in out
    assert "right answers on the same 8 questions" in out and f"{gained} gained, {3 - gained} lost" in out
    assert main(["validate", "--data.val_rows", "4"]) == 0  # other rows: nothing to compare
    out = capsys.readouterr().out
    assert "before" not in out and "gained" not in out and "4 held-out rows answered" in out


def test_a_value_on_the_command_line_beats_the_runs(in_trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = str(in_trained / "checkpoints" / "last.ckpt")
    assert main(["validate", "--ckpt_path", checkpoint, "--model.evaluation.rows", "3"]) == 0
    assert "3 held-out rows answered" in capsys.readouterr().out


def test_test_measures_rows_that_validation_never_saw(in_trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["test", "--ckpt_path", "last"]) == 0
    assert "loss per token" in capsys.readouterr().out


RESPONSE = {
    "prompt", "thoughts", "answer", "finished", "well_formed", "ended_by", "tokens", "thinking_tokens",
    "forced_tokens", "raw",
}  # fmt: skip


def test_predict_writes_an_object_for_each_row(in_trained: Path) -> None:
    assert main(["predict"]) == 0
    (path,) = in_trained.glob("predictions-*.jsonl")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["row"] for row in rows] == list(range(8))
    assert set(rows[0]) == {"row", "reference", "matches", "judged_by", *RESPONSE}


def test_generate_prints_text_or_an_object_a_line(in_trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    limit = ["--max_new_tokens", "20"]
    assert main(["generate", "--prompt", "Solve x + 5 = 12", *limit]) == 0
    text = capsys.readouterr().out
    assert (
        main(
            ["generate", "--prompt", "Solve x + 5 = 12", "What is 3 * 4?", "--jsonl", *limit, "--run", str(in_trained)]
        )
        == 0
    )
    objects = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [set(one) for one in objects] == [RESPONSE] * 2
    assert objects[0]["prompt"] == "Solve x + 5 = 12"
    assert objects[0]["answer"] in text or objects[0]["thoughts"]


def test_thinking_is_steered_from_the_command_line(in_trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    steered = ["--grammar", "true", "--thinking_budget", "3", "--answer_reserve", "9", "--max_new_tokens", "20"]
    assert main(["generate", "--prompt", "Solve x + 5 = 12", "--jsonl", *steered]) == 0
    (one,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert one["thinking_tokens"] <= 3 and one["thoughts"] and one["answer"]
    assert (one["ended_by"], one["forced_tokens"]) == ("budget", 1)
    assert "⟦</think>⟧" in one["raw"] and 0 <= one["masked"] <= 1
    long = "and so on " * 20
    assert main(["generate", "--prompt", "a", "--thinking_budget", "9", "--cut_message", long]) == 2
    assert "error: cut_message: 'and so on" in capsys.readouterr().err


def test_prompts_come_from_a_file_too(in_trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "asks.txt").write_text("Solve x + 5 = 12\n\nWhat is 3 * 4?\n")
    assert main(["generate", "--prompts", str(tmp_path / "asks.txt"), "--jsonl", "--max_new_tokens", "4"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_several_prompts_have_a_line_of_progress(
    in_trained: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lightning_modules.run.progress_line.EVERY", 0.0)
    assert main(["generate", "--prompt", "Hi", "--max_new_tokens", "4"]) == 0
    assert "answers" not in capsys.readouterr().err
    assert main(["generate", "--prompt", "Hi", "What is 3 * 4?", "--max_new_tokens", "4"]) == 0
    assert re.search(
        r"^answering: \d/2 answers, [\d,]+ tokens/s, 0:00:\d\d left$", capsys.readouterr().err, re.MULTILINE
    )
    assert main(["validate"]) == 0
    assert re.search(r"^answering held-out rows: \d/8 answers", capsys.readouterr().err, re.MULTILINE)


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is installed")
def test_an_engine_that_is_not_installed_is_one_line(in_trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "--prompt", "Hi", "--engine", "vllm"]) == 2
    assert "--engine: 'vllm' is not installed. pip install vllm, or delete --engine." in capsys.readouterr().err


def test_the_export_opens_with_pipeline_and_writes_what_generate_writes(
    in_trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from transformers import pipeline

    assert main(["generate", "--prompt", "Solve x + 5 = 12", "--max_new_tokens", "40"]) == 0
    ours = capsys.readouterr().out.removesuffix("\n")
    assert main(["export", "--to", str(tmp_path / "model")]) == 0
    ask = pipeline("text-generation", model=str(tmp_path / "model"))
    said = ask([{"role": "user", "content": "Solve x + 5 = 12"}], max_new_tokens=40)[0]["generated_text"][-1]["content"]
    assert said == ours
    earlier = [{"role": "user", "content": "Solve x + 5 = 12"}, {"role": "assistant", "content": said}]
    chat = [{"role": "system", "content": "Be brief."}, *earlier, {"role": "user", "content": "What is 3 * 4?"}]
    (tmp_path / "chats.jsonl").write_text(json.dumps({"messages": chat}))
    capsys.readouterr()
    assert main(["generate", "--prompts", str(tmp_path / "chats.jsonl"), "--max_new_tokens", "40"]) == 0
    ours = capsys.readouterr().out.removesuffix("\n")
    assert ask(chat, max_new_tokens=40)[0]["generated_text"][-1]["content"] == ours
    assert ask.tokenizer.convert_ids_to_tokens([545, 546]) == ["<think>", "</think>"]  # 0 to 544 were there before
    assert "tiny-qwen, trained to think" in (tmp_path / "model" / "README.md").read_text()
    assert main(["export", "--to", str(tmp_path / "model")]) == 2  # never over what is there


def test_the_number_of_samples_is_a_setting_and_a_limit_is_seen_in_the_figures(
    in_tmp: Path, fit: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    short = ("--model.evaluation.decoding.max_new_tokens", "2", "--trainer.max_steps", "1")
    for number in ("0", "100"):
        assert fit(*short, "--model.evaluation.samples", number, "--run.name", f"of{number}") == 0
        (run,) = (in_tmp / "runs" / f"of{number}").iterdir()
        samples, before = (run / "samples.md").read_text(), summary(run)["before"]
        assert samples.count("#### Row ") == (8 * samples.count("\n8 questions: ") if number == "100" else 0)
        assert f"8 questions: {8 * before['answer_match']:.0f} right" in samples
        assert f"{8 * before['cut']:.0f} cut off" in samples and before["cut"] > 0.5
        logged = next(csv.DictReader((run / "metrics.csv").open()))
        assert float(logged["val/cut"]) == before["cut"] and float(logged["val/looped"]) == 0
    assert f"cut off {100 * before['cut']:.1f} %" in " ".join(capsys.readouterr().out.split())


def test_no_fit_lands_in_the_folder_of_another(in_tmp: Path, fit: Callable[..., int]) -> None:
    one_step = ("--trainer.max_steps", "1", "--model.evaluation.rows", "0")
    assert fit(*one_step) == 0
    assert fit(*one_step) == 0
    assert len(list((in_tmp / "runs" / "demo").iterdir())) == 2


@pytest.mark.parametrize(
    "precision",
    [
        ("--model.dtype", "bfloat16"),
        ("--trainer.precision", "bf16-mixed"),
        ("--model.dtype", "bfloat16", "--trainer.precision", "bf16-mixed"),
    ],
    ids=["bfloat16 base", "bf16-mixed", "both"],
)
def test_half_precision_trains_and_keeps_what_is_trained_in_float32(
    precision: tuple[str, ...], in_tmp: Path, fit: Callable[..., int]
) -> None:
    assert fit(*precision, "--trainer.max_epochs", "1", "--model.evaluation.rows", "2") == 0
    (run,) = (in_tmp / "runs" / "demo").iterdir()
    content = summary(run)
    assert content["after"]["loss"] < content["before"]["loss"]
    tensors = read_checkpoint(run / "checkpoints" / "last.ckpt")["state_dict"].values()
    assert {tensor.dtype for tensor in tensors} == {torch.float32}


def test_a_fit_on_a_cpu_says_what_it_multiplies_faster(
    in_tmp: Path, fit: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("commands.fit.bfloat16_gain", lambda: 2.0)
    once = ("--trainer.max_steps", "1", "--model.evaluation.rows", "0")
    assert fit(*once) == 0
    assert "this CPU multiplies" not in capfd.readouterr().err  # of a model as small, products are not most of a step
    monkeypatch.setattr("commands.fit.WIDE", 1)
    assert fit(*once) == 0
    assert capfd.readouterr().err.count("this CPU multiplies bfloat16 2.0 times as fast as float32") == 1


def test_weights_and_biases_by_config(in_tmp: Path, fit: Callable[..., int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    short = ("--trainer.max_steps", "1", "--model.evaluation.rows", "0")
    assert fit("--config", str(ROOT / "configs" / "logger" / "wandb.yaml"), *short) == 0
    assert list((in_tmp / "runs" / "wandb").glob("offline-run-*/*.wandb"))
    (run,) = (in_tmp / "runs" / "demo").iterdir()
    assert (run / "metrics.csv").is_file()  # beside it, not in its place


def test_a_logger_whose_package_is_missing_is_named(
    in_tmp: Path, fit: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Missing:
        def __bool__(self) -> bool:
            return False

        def __str__(self) -> str:
            return "No module named 'wandb'"

    # Not its __init__: the parser remembers the settings of a class, also for a test that comes later
    monkeypatch.setattr("lightning.pytorch.loggers.wandb._WANDB_AVAILABLE", Missing())
    assert fit("--trainer.logger.class_path", "lightning.pytorch.loggers.WandbLogger") == 2
    assert "No module named 'wandb'" in capsys.readouterr().err
