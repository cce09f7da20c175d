"""Every setting of every command has a range, and whatever is outside of it is refused in one line that names it."""

import json
import math
import re
import types
import typing
from pathlib import Path
from typing import Any

import pytest

from commands import chat, estimate, evaluate, export, generate, preview, replay, report, self_train, serve
from commands.fit_settings import fit_parser
from commands.parsing import Parser
from commands.ranges import RANGES
from commands.rules import FilePath
from commands.settings import Setting
from errors import UserError

PARSERS: dict[str, Parser] = {
    "fit": fit_parser("fit"), "generate": generate.build_parser(), "preview": preview.build_parser(),
    "estimate": estimate.build_parser(), "export": export.build_parser(), "replay": replay.build_parser(),
    "evaluate": evaluate.build_parser(),
    "self_train": self_train.build_parser(), "serve": serve.build_parser(),
    "chat": chat.build_parser(), "report": report.build_parser(),
}  # fmt: skip
# Values that are whole YAML trees or classes: their own code checks them
OPEN = {
    "config", "print_config", "allow_modules", "data.filters", "data.malformed_overrides", "data.mix",
    "data.mix.filters", "data.mix.malformed_overrides", "model.lora.peft", "trainer.callbacks", "trainer.logger",
    "trainer.plugins", "trainer.precision",
}  # fmt: skip
# Numbers that are usual and odd at once, by what they mean
MAY_BE_0 = {
    "seed_everything", "model.gradient_checkpointing", "model.lora.dropout", "model.optim.weight_decay",
    "model.optim.betas", "model.optim.warmup_ratio", "model.optim.min_lr_ratio", "model.evaluation.rows",
    "model.evaluation.samples",
    "model.evaluation.decoding.temperature", "data.seed", "data.num_workers", "checkpoint.every_n_minutes",
    "checkpoint.save_total_limit", "trainer.fast_dev_run", "trainer.limit_val_batches", "trainer.overfit_batches",
    "trainer.num_sanity_val_steps", "trainer.gradient_clip_val", "trainer.reload_dataloaders_every_n_epochs",
    "temperature", "seed", "rows", "rounds", "easy", "port", "queue", "effort_minimal", "effort_low", "effort_medium",
    *(f"{group}{key}" for group in ("", "model.evaluation.decoding.") for key in (
        "thinking_budget", "min_thinking", "answer_reserve", "extend", "loop_tokens",
    )), *(f"model.role_weights.{role}" for role in ("thought", "tag", "answer", "end")),
}  # fmt: skip
MAY_BE_MINUS_1 = {"trainer.max_epochs", "trainer.max_steps", "trainer.num_sanity_val_steps", "trainer.devices"}
MAY_BE_EMPTY = {"data.system", "data.template", "data.new_tokens", "data.steps.markers", "prompt", "dropped", *(
    f"{group}{key}" for group in ("", "model.evaluation.decoding.") for key in ("cut_message", "extend_text")
)}  # fmt: skip
MAY_BE_LONG = {"data.system", "data.template", "prompt"}


def classes(hint: Any) -> set[Any]:
    """The classes in a type hint; a literal counts as a bool: its values are a closed list."""
    if typing.get_origin(hint) is typing.Literal:
        return {bool}
    parts = {kind for part in typing.get_args(hint) for kind in classes(part)}
    return parts or {hint}


def is_closed(one: Setting) -> bool:
    return one.hint is None or classes(one.hint) <= {bool, types.NoneType}


EVERY = [(command, key) for command, parser in PARSERS.items() for key, one in parser.settings.items()
         if one.fields is None and not is_closed(one) and (command == "fit" or "." not in key)]  # fmt: skip


@pytest.mark.parametrize("command", PARSERS)
def test_every_setting_has_a_range(command: str) -> None:
    """A new setting, or one of a new release of Lightning, fails here until the table has it."""
    keys = {key for name, key in EVERY if name == command}
    assert keys - OPEN <= RANGES.keys()


def test_the_table_has_no_setting_that_no_command_has() -> None:
    assert {key for _, key in EVERY} >= RANGES.keys()


def refusal(command: str, key: str, text: str) -> str | None:
    """What a command says of a value, or None if it takes it. Any other exception fails the test."""
    parser = PARSERS[command]
    args = [text] if parser.settings[key].positional else [f"--{key}={text}"]
    if key.startswith("data.mix."):
        args = ["--data.mix", json.dumps([{"name": "builtin"} | {key.removeprefix("data.mix."): number(text)}])]
    if key.startswith("data.source_tags."):
        args = ["--data.source_tags", "{}", *args]
    required = [] if "model.name" not in parser.settings or key == "model.name" else ["--model.name=x"]
    required += ["file"] if command == "replay" and key != "file" else []
    try:
        parser.read([*required, *args])
    except UserError as error:
        return str(error)
    return None


def number(text: str) -> Any:
    """The number in a text, or the text."""
    try:
        return float(text)
    except ValueError:
        return text


def owner(key: str) -> str:
    """What a message about a wrong type names: the list, for a setting of its items."""
    return "data.mix" if key.startswith("data.mix.") else key


def numeric(command: str, key: str) -> bool:
    return bool(classes(PARSERS[command].settings[key].hint) & {int, float})


NUMBERS = [(command, key) for command, key in EVERY if numeric(command, key) and key not in OPEN]
TEXTS = [(command, key) for command, key in EVERY if not numeric(command, key) and key not in OPEN]


@pytest.mark.parametrize(("command", "key"), NUMBERS, ids=lambda value: value)
def test_odd_numbers_are_refused_in_one_line_that_names_the_setting(command: str, key: str) -> None:
    odd = ["nan", ".nan", "inf", ".inf", "-.inf", "1e400", str(2**70), "-7", "", "[]", "many"]
    odd += ["-1"] if key not in MAY_BE_MINUS_1 else []
    odd += ["0"] if key not in MAY_BE_0 else []
    for text in odd:
        if typing.get_origin(PARSERS[command].settings[key].hint) is tuple and text not in ("", "[]", "many"):
            text = f"[0.5, {text}]"
        said = refusal(command, key, text)
        assert said is not None and "\n" not in said, (key, text, said)
        assert said.startswith(owner(key)), said


@pytest.mark.parametrize(("command", "key"), TEXTS, ids=lambda value: value)
def test_odd_texts_are_refused_in_one_line_that_names_the_setting(command: str, key: str) -> None:
    odd = ["a\0b", "a\x1b[2J"] + ["", "  "] * (key not in MAY_BE_EMPTY) + ["x" * 10_000] * (key not in MAY_BE_LONG)
    for text in odd:
        if classes(PARSERS[command].settings[key].hint) >= {str} and "list[" in str(
            PARSERS[command].settings[key].hint
        ):
            text = json.dumps([text])
        said = refusal(command, key, text)
        assert said is not None and "\n" not in said and "\0" not in said and len(said) < 700, (key, text[:20], said)
        assert said.startswith(owner(key)), said


NO_NULL = [
    key for key, one in PARSERS["fit"].settings.items()
    if one.fields is None and one.hint is not None and typing.Any not in classes(one.hint)
    and types.NoneType not in classes(one.hint) and not key.startswith("data.mix.")
    and key not in ("config", "print_config", "allow_modules")
]  # fmt: skip


@pytest.mark.parametrize("key", NO_NULL)
def test_null_is_refused_where_it_is_no_value(key: str, tmp_path: Path) -> None:
    """Also in groups below another one, for which the parser takes null."""
    tree: Any = None
    for part in reversed(key.split(".")):
        tree = {part: tree}
    given = tmp_path / "null.yaml"
    given.write_text(json.dumps(tree))
    with pytest.raises(UserError, match=f"^{re.escape(key)}"):
        PARSERS["fit"].read(["--model.name=x", "--config", str(given)])


@pytest.mark.parametrize(
    "name", ["../x", "a/../b", "..", ".", "", " ", "/x", "a//b", "a/", "~/x", "a\0b", "é" * 128, "a/" + "b" * 256]
)
def test_the_name_of_a_run_stays_in_its_root(name: str) -> None:
    assert str(refusal("fit", "run.name", name)).startswith("run.name:")


@pytest.mark.parametrize("name", ["exp[1] größer", "qwen/lr1", "a*b?"])
def test_other_names_of_a_run_pass(name: str) -> None:
    assert refusal("fit", "run.name", name) is None


def test_what_a_number_may_be() -> None:
    """Ends belong to the range or not, as the table says."""
    inside = {
        "model.optim.lr": "0.999", "model.optim.warmup_ratio": "1", "model.lora.dropout": "0",
        "data.near_duplicate_threshold": "1", "trainer.limit_train_batches": "1", "trainer.val_check_interval": "0.5",
        "trainer.max_time": "00:00:00:01", "seed_everything": str(2**32 - 1), "trainer.devices": "auto",
    }  # fmt: skip
    outside = {
        "model.optim.lr": "1", "model.optim.warmup_ratio": "1.01", "model.lora.dropout": "1",
        "data.near_duplicate_threshold": "0", "trainer.limit_train_batches": "1.5", "trainer.val_check_interval": "1.5",
        "trainer.max_time": "00:00:00:00", "seed_everything": str(2**32), "trainer.devices": "0",
    }  # fmt: skip
    assert {key: refusal("fit", key, text) for key, text in inside.items()} == dict.fromkeys(inside)
    said = {key: refusal("fit", key, text) for key, text in outside.items()}
    assert all(str(line).startswith(f"{key}:") for key, line in said.items()), said
    assert not math.isnan(RANGES["model.optim.lr"].least)  # type: ignore[attr-defined]


def test_a_whole_number_is_a_count_whatever_the_order_of_the_types(tmp_path: Path) -> None:
    """Python caches unions: if a library has made `float | int` first, the type of these settings has that order."""
    config = tmp_path / "one.yaml"
    config.write_text("trainer: {limit_train_batches: 1, limit_val_batches: 0.5}")
    parser = fit_parser("fit", "")
    args = [
        "--config",
        str(config),
        "--model.name",
        "x",
        "--trainer.overfit_batches",
        "1",
        "--trainer.limit_val_batches",
    ]
    for text, expected in (("1", 1), ("1.0", 1.0), ("0.25", 0.25)):
        trainer = parser.read([*args, text]).trainer
        assert (trainer.limit_train_batches, type(trainer.limit_train_batches)) == (1, int)
        assert (trainer.overfit_batches, type(trainer.overfit_batches)) == (1, int)
        assert (trainer.limit_val_batches, type(trainer.limit_val_batches)) == (expected, type(expected))


def test_a_path_is_measured_in_bytes() -> None:
    assert FilePath().problem("é/" * 1_300) is None
    assert FilePath().problem("é/" * 1_400) == "has more than 4,095 bytes"


@pytest.mark.parametrize(
    ("command", "key"),
    [("estimate", "tokens_per_second"), ("estimate", "tflops"), ("generate", "temperature")],
)
def test_a_number_that_others_are_divided_by_is_not_vanishing(command: str, key: str) -> None:
    """Above 0 is not enough: the quotient would overflow."""
    for text in ("1e-320", "5e-324", "1e-300"):
        assert str(refusal(command, key, text)).startswith(f"{key}: '{text}' is below")
