"""A setting that has no effect beside others is named in one line; one that has an effect is not."""

from typing import Any

import pytest

from commands import estimate, evaluate, generate, preview, self_train
from commands.fit_settings import fit_parser
from commands.no_effect import CASES, ignored_variables

PARSERS = {
    "fit": lambda: fit_parser("fit"),
    "generate": generate.build_parser,
    "evaluate": evaluate.build_parser,
    "self_train": self_train.build_parser,
    "preview": preview.build_parser,
    "estimate": estimate.build_parser,
}
EVALUATED = "--model.evaluation.decoding."
MIX = ("--data.mix", "[{name: builtin}]")


def said(command: str, caplog: Any, *args: str) -> list[str]:
    needed = () if command in ("generate", "evaluate", "self_train") else ("--model.name", "assets/tiny-qwen")
    PARSERS[command]().read([*needed, *args])
    return [record.message.partition(" has no effect: ")[0] for record in caplog.records]


@pytest.mark.parametrize(
    ("command", "args", "named"),
    [
        ("fit", ("--model.revision", "main"), ["model.revision"]),
        ("fit", ("--model.start", "runs/a/b"), []),
        ("estimate", ("--model.start", "runs/a/b"), ["model.start"]),
        ("preview", ("--model.start", "runs/a/b"), ["model.start"]),
        ("fit", ("--model.lora", "null", "--model.optim.new_token_lr", "1e-3"), ["model.optim.new_token_lr"]),
        ("fit", ("--model.optim.new_token_lr", "1e-3"), []),
        ("fit", ("--model.evaluation.samples", "5", "--model.evaluation.rows", "0"), ["model.evaluation.samples"]),
        ("fit", ("--model.evaluation.samples", "5"), []),
        ("fit", ("--model.optim.min_lr_ratio", "0.1"), ["model.optim.min_lr_ratio"]),
        ("fit", ("--model.optim.min_lr_ratio", "0.1", "--model.optim.lr_scheduler_type", "linear"), []),
        ("fit", (*MIX, "--data.source", "x.jsonl"), ["data.source"]),
        ("preview", (*MIX, "--data.revision", "v1", "--data.split", "test"), ["data.revision", "data.split"]),
        ("fit", ("--data.revision", "v1"), ["data.revision"]),
        ("fit", ("--data.source", "owner/set", "--data.revision", "v1"), []),
        ("fit", ("--data.columns.response", "output"), ["data.columns"]),
        ("preview", ("--data.steps.markers", "[Hm]"), ["data.steps.markers"]),
        ("preview", ("--data.steps.markers", "[Hm]", "--data.steps.split", "marker"), []),
        ("fit", ("--trainer.fast_dev_run", "1", "--checkpoint.save_total_limit", "9"), ["checkpoint.save_total_limit"]),
        ("fit", ("--trainer.gradient_clip_algorithm", "value"), ["trainer.gradient_clip_algorithm"]),
        ("fit", ("--trainer.gradient_clip_algorithm", "value", "--trainer.gradient_clip_val", "1"), []),
        ("fit", ("--trainer.default_root_dir", "x"), ["trainer.default_root_dir"]),
        ("generate", ("--top_p", "0.9", "--seed", "2"), ["top_p", "seed"]),
        ("generate", ("--top_p", "0.9", "--temperature", "0.6"), []),
        ("generate", ("--thinking", "false", "--answer_reserve", "9"), ["answer_reserve"]),
        ("generate", ("--thinking_budget", "0", "--cut_message", "Stop."), ["cut_message"]),
        ("generate", ("--thinking_budget", "512"), ["thinking_budget"]),
        ("generate", ("--thinking_budget", "8", "--thought_budget", "8"), ["thought_budget"]),
        ("generate", ("--cut_message", "Stop."), ["cut_message"]),
        ("generate", ("--cut_message", "Stop.", "--loop_tokens", "9", "--loop_repeats", "3"), []),
        ("generate", ("--extend_text", "Hm,", "--loop_repeats", "3"), ["extend_text", "loop_repeats"]),
        ("evaluate", ("--extend_text", "Hm,", "--seed", "2"), ["extend_text", "seed"]),
        ("self_train", ("--extend_text", "Hm,", "--seed", "2"), ["extend_text"]),
        ("fit", (f"{EVALUATED}extend_text", "Hm,"), [f"{EVALUATED}extend_text".strip("-")]),
        ("fit", (f"{EVALUATED}extend_text", "Hm,", f"{EVALUATED}extend", "1"), []),
        ("preview", ("--row", "3", "--rows", "9"), ["rows"]),
        ("estimate", ("--row_tokens", "9"), ["row_tokens"]),
        ("estimate", ("--row_tokens", "9", "--tflops", "100"), []),
        ("preview", ("--ckpt_path", "last"), ["ckpt_path"]),
        ("fit", (), []),
    ],
)  # fmt: skip
def test_what_has_no_effect_is_named(command: str, args: tuple[str, ...], named: list[str], caplog: Any) -> None:
    assert said(command, caplog, *args) == named


def test_every_case_is_of_settings_that_its_commands_have() -> None:
    for case in CASES:
        for command in case.commands.split():
            assert set(case.keys.split()) <= PARSERS[command]().settings.keys()


def test_only_variables_of_the_trainer_are_named() -> None:
    environ = {"PL_TRAINER_MAX_EPOCHS": "3", "PL_GLOBAL_SEED": "1", "PATH": "x"}
    assert list(ignored_variables(environ)) == ["PL_TRAINER_MAX_EPOCHS has no effect: set trainer.max_epochs"]
