"""Every shipped config parses against the real signatures, and says what the recipe says."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT

CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))
OVERLAYS = [path for path in CONFIGS if path.parent != ROOT / "configs"]


def parse(capsys: pytest.CaptureFixture[str], *names: str) -> dict[str, Any]:
    """The resolved config of `fit` with these files, as --print_config shows it."""
    from cli import main

    files = [part for name in names for part in ("--config", str(ROOT / "configs" / name))]
    assert main(["fit", *files, "--print_config"]) == 0
    resolved: dict[str, Any] = yaml.safe_load(capsys.readouterr().out)
    return resolved


def rows_per_step(config: dict[str, Any]) -> int:
    trainer = config["trainer"]
    return int(config["data"]["batch_size"] * trainer["devices"] * trainer["accumulate_grad_batches"])


def test_the_recipe_is_word_for_word(capsys: pytest.CaptureFixture[str]) -> None:
    config = parse(capsys, "multi_think.yaml")
    model, data, trainer = config["model"], config["data"], config["trainer"]
    assert (model["name"], model["dtype"]) == ("Qwen/Qwen1.5-1.8B-Chat", "float16")
    assert model["lora"] | {} == model["lora"]
    assert {key: model["lora"][key] for key in ("rank", "alpha", "target_modules")} == {
        "rank": 8, "alpha": 16.0, "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"],
    }  # fmt: skip
    assert (model["optim"]["lr"], model["optim"]["lr_scheduler_type"]) == (2e-5, "constant")
    assert data["source"] == "Magpie-Align/Magpie-Reasoning-V2-250K-CoT-Deepseek-R1-Llama-70B"
    assert data["revision"] == "d78edb811991faba57a3b7226719f3818460e723"
    assert data["template"] == "instruction"
    assert (data["heldout_ratio"], data["train_rows"], data["val_rows"], data["max_length"]) == (
        0.1,
        10_000,
        1_000,
        512,
    )
    assert (data["batch_size"], data["num_workers"], data["steps"]["split"]) == (4, 4, "sentence")
    assert (trainer["devices"], trainer["strategy"], trainer["precision"]) == (4, "ddp", "16-mixed")
    assert (trainer["max_epochs"], trainer["accumulate_grad_batches"], trainer["log_every_n_steps"]) == (3, 4, 50)


def test_single_and_multi_differ_in_the_think_setting_and_the_name_only(capsys: pytest.CaptureFixture[str]) -> None:
    single, multi = parse(capsys, "single_think.yaml"), parse(capsys, "multi_think.yaml")
    assert (single["run"]["name"], single["data"]["steps"]["split"]) == ("single_think", "none")
    single["run"]["name"], single["data"]["steps"]["split"] = "multi_think", "sentence"
    assert single == multi


@pytest.mark.parametrize(("overlays", "rows"), [
    (["hardware/one_gpu.yaml"], 64), (["hardware/cpu.yaml"], 64), (["strategy/fsdp.yaml"], 64),
    (["memory/qlora.yaml"], 64), (["recipe/strong.yaml", "memory/qlora.yaml"], 32),
    (["recipe/strong.yaml"], 32),
    (["recipe/strong.yaml", "hardware/one_gpu.yaml"], 32), (["hardware/one_gpu.yaml", "recipe/strong.yaml"], 32),
])  # fmt: skip
def test_overlays_stack_and_keep_the_rows_of_a_step(
    overlays: list[str], rows: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert rows_per_step(parse(capsys, "multi_think.yaml", *overlays)) == rows


def test_strong_is_what_the_evidence_says(capsys: pytest.CaptureFixture[str]) -> None:
    config = parse(capsys, "multi_think.yaml", "recipe/strong.yaml")
    lora, optim = config["model"]["lora"], config["model"]["optim"]
    assert (lora["rank"], lora["use_rslora"], lora["target_modules"]) == (64, True, "all-linear")
    assert (optim["lr"], optim["lr_scheduler_type"], config["data"]["max_length"]) == (1e-4, "cosine", 4096)
    assert optim["warmup_ratio"] > 0


def test_qlora_changes_what_the_base_is_held_in_and_nothing_of_the_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    plain, four_bit = parse(capsys, "multi_think.yaml"), parse(capsys, "multi_think.yaml", "memory/qlora.yaml")
    assert (four_bit["model"].pop("quantize"), four_bit["model"].pop("gradient_checkpointing")) == ("nf4", True)
    assert (plain["model"].pop("quantize"), plain["model"].pop("gradient_checkpointing")) == (None, False)
    assert four_bit == plain


def test_the_mix_is_four_to_one(capsys: pytest.CaptureFixture[str]) -> None:
    data = parse(capsys, "multi_think.yaml", "recipe/strong.yaml", "data/mix.yaml")["data"]
    assert [source["weight"] for source in data["mix"]] == [4.0, 1.0]
    assert data["mix"][0]["filters"] == {"tokens": {"max": 1000}}
    assert data["max_length"] == 4096


def test_the_others_parse_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert parse(capsys, "demo.yaml")["model"]["name"] == "assets/tiny-qwen"
    assert parse(capsys, "tiny_base.yaml")["model"]["lora"] is None


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.relative_to(ROOT / "configs").as_posix())
def test_every_file_says_what_it_is_for(path: Path) -> None:
    head = path.read_text().partition("\n\n")[0] if path not in OVERLAYS else path.read_text()
    for word in ("python ", "Memory", "esume"):
        assert word in head, f"{path} does not say: {word}"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.relative_to(ROOT / "configs").as_posix())
def test_the_commands_in_the_headers_name_files_that_exist(path: Path) -> None:
    for name in re.findall(r"(?:configs|assets)/[\w/.-]+\.(?:yaml|py)", path.read_text()):
        assert (ROOT / name).is_file(), f"{path} names {name}"
