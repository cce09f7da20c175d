"""Every mistake is one line with the key, the value and the way out, exits with 2, and leaves nothing behind."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from cli import main
from tests.cli.conftest import DEMO
from tests.conftest import ROOT

MULTI = str(ROOT / "configs" / "multi_think.yaml")
CPU = str(ROOT / "configs" / "hardware" / "cpu.yaml")


@pytest.fixture
def refused(in_tmp: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Runs a command that must fail before it loads a model, and gives its one line."""
    import lightning_modules.think_tuner as tuner

    monkeypatch.setattr(tuner, "load_base", lambda *_: pytest.fail("loaded a model before the mistake was seen"))

    def run(*args: str) -> str:
        capsys.readouterr()
        assert main(args) == 2
        err = capsys.readouterr().err
        errors = [line for line in err.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1, err
        assert "Traceback" not in err
        return errors[0]

    return run


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--model.lora.rnak", "4"), ["model.lora.rnak", "model.lora.rank?"]),
        (("--model.learning_rate", "1"), ["model.learning_rate", "there is no such setting"]),
        (("--optim.lr", "1"), ["optim.lr", "model.optim.lr?"]),
        (("--data.max_lenght", "4"), ["data.max_lenght", "data.max_length?"]),
        (("--trainer.max_epoch", "4"), ["trainer.max_epoch", "trainer.max_epochs?"]),
        (("--model.lora.rank", "many"), ["model.lora.rank", "'many'", "int"]),
        (("--model.lora.rank", "0"), ["model.lora.rank", "'0'"]),
        (("--trainer.callbacks+=tests.cli.crash.Crash",), ["trainer.callbacks", "has no attribute 'Crash'"]),
        (("--model.lora", "5"), ["model.lora", "'5'", "or null"]),
        (("--model", "[1]"), ["model", "is not valid"]),
        *(((f"--{group}", "null"), [f"error: {group}: 'null'"]) for group in ("run", "model", "data", "trainer")),
        *(((f"--{group}", "[1]"), [f"error: {group}: '1'"]) for group in ("run", "data", "trainer")),
        (("--model.dtype", "half"), ["model.dtype", "'half'", "float16"]),
        (("--data.steps.split", "word"), ["data.steps.split", "'word'", "sentence"]),
        (("--data.max_length", "-5"), ["data.max_length", "'-5'", "from 8 to"]),
        (("--data.train_rows", "0"), ["data.train_rows", "'0'", "null for all"]),
        (("--data.train_rows", "null"), ["data.train_rows", "endless"]),
        (("--data.heldout_ratio", "10"), ["data.heldout_ratio", "'10", "0.1"]),
        (("--data.template", "Q: {instruction}"), ["data.template", "is not Jinja"]),
        (("--data.template", "Q: {{ instruction"), ["data.template", "line 1"]),
        (("--data.template", "nowhere.jinja"), ["data.template", "'nowhere.jinja' does not exist"]),
        (("--data.system", "Be brief."), ["data.system", "has no place"]),
        (("--data.tags.open", "</think>"), ["data.tags", "is not two different tags"]),
        (("--data.overlong", "cut"), ["data.overlong", "'cut'", "truncate"]),
        (("--data.malformed_overrides.nested", "mend"), ["data.malformed_overrides.nested", "'mend'", "repair"]),
        (("--data.near_duplicate_threshold", "2"), ["data.near_duplicate_threshold", "'2.0'"]),
        (("--data.packing", "pack"), ["data.packing", "'pack'", "packed", "none"]),
        (("--data.packing", "none", "--data.tokens_per_step", "9"), ["data.tokens_per_step", "data.packing is none"]),
        (("--data.num_proc", "0"), ["data.num_proc", "from 1 to"]),
        (("--data.filters", "{tokens: []}"), ["data.filters.tokens", "would keep nothing"]),
        (("--data.mix", "[{name: builtin, weight: 0}]"), ["data.mix", "is not above 0"]),
        (("--data.mix", "[{name: builtin, wieght: 1}]"), ["data.mix.wieght", "data.mix.weight?"]),
        (("--model.optim.lr", "0"), ["model.optim.lr", "'0.0'"]),
        (("--model.name", "no/such/folder"), ["model.name", "'no/such/folder'", "does not exist"]),
        (("--model.name", "Qwen/Qwen1.5-1.8B-Instruct"), ["model.name", "Use Qwen/Qwen1.5-1.8B-Chat."]),
        (("--data.source", "no/such/rows.jsonl"), ["data.source", "'no/such/rows.jsonl'", "does not exist"]),
        (("--trainer.precision", "16-mixed"), ["trainer.precision", "needs a GPU", "configs/hardware/cpu.yaml"]),
        (("--trainer.accelerator", "gpu"), ["trainer.accelerator", "configs/hardware/cpu.yaml"]),
        (("--trainer.devices", "x,y"), ["trainer.devices", "indices like [0, 1]"]),
        (("--trainer.devices", "0"), ["trainer.devices"]),
        (("--trainer.num_nodes", "0"), ["trainer.num_nodes", "'0' is below 1"]),
        (("--trainer.max_epochs", "-5"), ["trainer.max_epochs", "-5"]),
        (("--trainer.limit_val_batches", "-1"), ["trainer.limit_val_batches", "'-1' is below 0"]),
        (("--trainer.gradient_clip_algorithm", "cut"), ["trainer.gradient_clip_algorithm", "cut"]),
        (("--trainer.strategy", "dpp"), ["trainer.strategy", "'dpp'"]),
        (("--trainer.accumulate_grad_batches", "0"), ["trainer.accumulate_grad_batches", "'0' is below 1"]),
        (("--trainer.check_val_every_n_epoch", "0"), ["trainer.check_val_every_n_epoch", "'0' is below 1"]),
        (("--trainer.log_every_n_steps", "0"), ["trainer.log_every_n_steps", "'0' is below 1"]),
        (("--trainer.val_check_interval", "0"), ["trainer.val_check_interval", "'0' leaves no batch"]),
        (("--seed_everything", "-1"), ["seed_everything", "'-1'", "Give a number from 0 to 4,294,967,295."]),
        (("--trainer.strategy", "fsdp"), ["trainer.strategy", "configs/strategy/fsdp.yaml"]),
        (("--ckpt_path", "last"), ["run", "holds no run with a checkpoint yet"]),
        (("--ckpt_path", "nowhere.ckpt"), ["--ckpt_path", "'nowhere.ckpt'", "is not a checkpoint"]),
        (("--run.root", "a_file/runs"), ["run.root", "'a_file/runs'", "goes through a file"]),
        (("--model.lora", "null", "--model.dtype", "bfloat16"), ["model.dtype", "'bfloat16'", "float32"]),
        (("--model.dtype", "float16"), ["model.dtype", "'float16'", "configs/hardware/cpu.yaml"]),
        (("--model.from_scratch", "true"), ["model.from_scratch", "model.lora null"]),
        (("--model.lora.peft.use_dorra", "true"), ["model.lora.peft.use_dorra", "Did you mean use_dora?"]),
        (("--model.lora.peft", "[use_dora]"), ["model.lora.peft", "'[use_dora]'", "Give {key: value, ...}"]),
        (("--model.quantize", "int8"), ["model.quantize", "'int8'", "nf4"]),
        (("--model.quantize", "nf4", "--model.lora", "null"), ["model.quantize", "Set model.lora"]),
        (("--model.quantize", "nf4", "--model.from_scratch", "true", "--model.lora", "null"), ["model.quantize"]),
        (
            ("--model.quantize", "nf4", "--model.lora.peft.init_lora_weights", "olora"),
            ["model.quantize", "'olora'", "model.quantize null"],
        ),
        (
            ("--model.quantize", "nf4", "--trainer.strategy", "lightning.pytorch.strategies.ModelParallelStrategy"),
            ["model.quantize", "trainer.strategy ddp"],
        ),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, tuple) else "",
)  # fmt: skip
def test_wrong_settings(args: tuple[str, ...], words: list[str], refused: Callable[..., str], in_tmp: Path) -> None:
    (in_tmp / "a_file").touch()
    line = refused("fit", "--config", DEMO, *args)
    assert all(word in line for word in words), line
    assert not (in_tmp / "runs").exists()


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("{dificulty: [hard]}", ["data.filters", "dificulty", "Did you mean difficulty?"]),
        ("{difficulty: [gigantic]}", ["data.filters", "leaves no row for train", "data.filters.difficulty is not met"]),
    ],
)
def test_conditions_that_no_row_meets(where: str, words: list[str], refused: Callable[..., str]) -> None:
    line = refused("fit", "--config", DEMO, "--data.filters", where)
    assert all(word in line for word in words), line


def test_steps_that_packed_rows_do_not_suit(refused: Callable[..., str], cache: Path) -> None:
    """Though the model is measured before the first of them."""
    few = ("--data.train_rows", "64", "--data.val_rows", "16", "--data.cache_dir", str(cache))
    line = refused("fit", "--config", DEMO, *few, "--data.packing", "packed", "--data.tokens_per_step", "20")
    assert "data.tokens_per_step: '20' is less than one pack of 256 tokens" in line


def test_wrong_keys_in_a_file(refused: Callable[..., str], in_tmp: Path) -> None:
    (in_tmp / "mine.yaml").write_text("model:\n  lora:\n    rnak: 4\n")
    assert "model.lora.rnak: there is no such setting. Did you mean model.lora.rank?" in refused(
        "fit", "--config", "mine.yaml"
    )
    (in_tmp / "mine.yaml").write_text("modle:\n  name: x\n")
    assert "Did you mean model?" in refused("fit", "--config", "mine.yaml")
    (in_tmp / "mine.yaml").write_text("data:\n  mix: [{name: builtin, split: x}]\nmodel:\n  optim: {lr: fast}\n")
    assert "model.optim.lr: 'fast' is not valid. Give float." in refused("fit", "--config", "mine.yaml")
    (in_tmp / "mine.yaml").write_text("model: [1\n")
    assert "mine.yaml" in refused("fit", "--config", "mine.yaml")


CONFIGS = {path: yaml.safe_load(path.read_text()) for path in sorted((ROOT / "configs").rglob("*.yaml"))}
OVERLAYS = [path for path, config in CONFIGS.items() if "name" not in config.get("model", {})]


ALONE = [("fit", overlay) for overlay in OVERLAYS] + [("preview", OVERLAYS[0]), ("validate", OVERLAYS[0])]


@pytest.mark.parametrize(("command", "overlay"), ALONE, ids=lambda value: str(getattr(value, "stem", value)))
def test_an_overlay_alone_is_refused(command: str, overlay: Path, refused: Callable[..., str]) -> None:
    line = refused(command, "--config", str(overlay), "--run.name", "a")
    assert line == (
        f"error: model.name: is not given: {overlay} is an overlay. "
        "Add --config configs/multi_think.yaml before it, or --model.name."
    )


@pytest.mark.parametrize("command", ["fit", "estimate"])
def test_fit_and_estimate_ask_for_a_config(command: str, refused: Callable[..., str]) -> None:
    line = refused(command, "--model.lora.rank", "4")
    assert "--config: is missing" in line and "configs/demo.yaml" in line and "configs/README.md" in line


@pytest.mark.parametrize("command", ["validate", "test", "predict", "generate", "export"])
def test_where_there_is_no_run_yet(command: str, refused: Callable[..., str]) -> None:
    more = ("--prompt", "Hi") if command == "generate" else ()
    assert "holds no run with a checkpoint yet. Train one first: python cli.py fit" in refused(command, *more)


def test_the_recipe_where_there_are_no_gpus_and_no_network(refused: Callable[..., str]) -> None:
    assert "configs/hardware/cpu.yaml" in refused("fit", "--config", MULTI)
    line = refused("fit", "--config", MULTI, "--config", CPU)
    assert all(word in line for word in ("Qwen/Qwen1.5-1.8B-Chat", "hf download", "--local-dir", "make demo"))


CUT = {"instruction": "a", "response": "<think>cut"}
LONG = {"instruction": "a", "response": "<think>a</think>" + "x " * 900}
OTHER = {"ask": "a", "result": "b"}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (json.dumps(OTHER), ["data.columns", "ask, result", "no layout", "data.columns.instruction"]),
        ("", ["data.source", "is empty"]),
        ("not json", ["data.source", "cannot be read"]),
        (json.dumps(CUT), ["data.source", "leaves no row", "1 think block never closed"]),
        (json.dumps(LONG), ["longer than data.max_length", "Raise data.max_length"]),
    ],
    ids=["columns", "empty", "broken", "malformed", "too long"],
)
def test_wrong_data(content: str, words: list[str], refused: Callable[..., str], in_tmp: Path) -> None:
    (in_tmp / "rows.jsonl").write_text(content)
    every_row = ("--data.train_rows", "null", "--data.val_rows", "null", "--data.cache_dir", "cache")
    line = refused("fit", "--config", DEMO, "--data.source", "rows.jsonl", *every_row)
    assert all(word in line for word in words), line


def test_checkpoints_that_do_not_fit(trained: Path, refused: Callable[..., str], in_tmp: Path) -> None:
    (run,) = (trained / "runs" / "demo").iterdir()
    copy = shutil.copytree(run, in_tmp / "runs" / "demo" / run.name)
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file() and path.name != "run.lock"}
    last = str(copy / "checkpoints" / "last.ckpt")
    fit = ("fit", "--config", DEMO, "--ckpt_path", last)
    assert "model.lora.rank: '4' differs from the checkpoint's, 32" in refused(*fit, "--model.lora.rank", "4")
    other = shutil.copytree(ROOT / "assets" / "tiny-qwen", in_tmp / "other")
    config = (other / "config.json").read_text()
    (other / "config.json").write_text(config.replace('"intermediate_size": 352', '"intermediate_size": 360'))
    assert "intermediate_size 360, the checkpoint's model 352. Set model.name to assets/tiny-qwen" in refused(
        *fit, "--model.name", str(other)
    )
    assert {path: path.read_bytes() for path in copy.rglob("*") if path.is_file() and path.name != "run.lock"} == before
    Path(last).write_bytes(before[Path(last)][:-1000])
    for command in (fit, ("validate", "--ckpt_path", last), ("generate", "--prompt", "a", "--ckpt_path", last)):
        line = refused(*command)
        assert "last.ckpt' is damaged" in line
        other = Path(line.partition("newest whole one is --ckpt_path ")[2].removesuffix("."))
        assert other.parent == copy / "checkpoints" and other.is_file()


@pytest.mark.parametrize(
    "command", [("generate", "--prompt", "a"), ("export",), ("validate",)], ids=lambda value: value[0]
)
def test_a_value_out_of_range_in_the_config_of_a_run(
    command: tuple[str, ...], in_trained: Path, refused: Callable[..., str]
) -> None:
    config = (in_trained / "config.yaml").read_text()
    assert "alpha: 64" in config
    (in_trained / "config.yaml").write_text(
        config.replace("alpha: 64.0", "alpha: -16").replace("alpha: 64", "alpha: -16")
    )
    assert "model.lora.alpha: '-16.0' is not above 0" in refused(*command)


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("batch_size: 16", "batch_size: x", "data.batch_size: 'x' is not valid. Give int."),
        ("trainer:", "trainer: 5 #", "has no settings of trainer. Restore the file from a copy."),
    ],
)
def test_a_damaged_config_of_a_run(
    old: str, new: str, line: str, in_trained: Path, refused: Callable[..., str]
) -> None:
    config = in_trained / "config.yaml"
    text = config.read_text()
    assert f"\n{old}" in text or f" {old}" in text
    config.write_text(text.partition("\ntrainer:")[0] + "\n" + new if old == "trainer:" else text.replace(old, new, 1))
    assert line in refused("validate")


def test_nothing_asked(trained: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(trained)
    assert "--prompt" in refused("generate")
    assert "--prompts: 'missing.txt' cannot be read" in refused("generate", "--prompts", "missing.txt")
