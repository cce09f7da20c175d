"""Settings of thinking that contradict each other are refused in one line, before a model is loaded."""

from pathlib import Path
from typing import Any

import pytest

from cli import main
from commands.generate import build_parser, decoding_settings
from datamodules.tokens.tokenizer import ThinkTokenizer
from errors import UserError
from lightning_modules.generation.decoding import DecodingSettings


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"answer_reserve": 38}, "answer_reserve: '38' leaves no room for a thought in max_new_tokens 40. Give at"),
        ({"answer_reserve": 900}, "answer_reserve"),
        ({"thinking": False, "extend": 1}, "extend: '1' needs thinking"),
        ({"thinking": False, "min_thinking": 1}, "min_thinking: '1' needs thinking"),
        ({"thinking_budget": 0, "extend": 1}, "extend"),
        ({"thinking_budget": 5, "min_thinking": 6}, "min_thinking: '6' is above thinking_budget 5"),
        ({"thought_budget": 2, "max_thoughts": 2, "min_thinking": 5}, "min_thinking: '5' is above 2 thoughts of 2"),
        ({"answer_reserve": 30, "min_thinking": 9}, "min_thinking: '9' has no room in max_new_tokens 40"),
        ({"extend": 2, "max_thoughts": 2}, "extend: '2' adds a thought each time"),
        ({"loop_tokens": 11, "loop_repeats": 4}, "loop_tokens: '11' times loop_repeats 4 is above max_new_tokens 40"),
        ({"thinking_budget": 10, "cut_message": " I must stop."}, "cut_message: ' I must stop.' has 10 tokens"),
        ({"thought_budget": 10, "cut_message": " I must stop."}, "cut_message"),
        ({"answer_reserve": 28, "cut_message": " I must stop."}, "cut_message"),
        ({"thinking_budget": 5, "extend": 1}, "extend_text: 'Wait,' has 5 tokens"),
        ({"thought_budget": 15, "extend": 1, "cut_message": " I must stop."}, "extend_text"),
        ({"thinking_budget": 9, "extend": 1, "extend_text": "</think>"}, "extend_text: '</think>' contains </think>"),
        ({"thinking_budget": 9, "thought_budget": 4, "min_thinking": 9, "cut_message": "!"}, "min_thinking"),
    ],
)  # fmt: skip
def test_contradictions_are_refused_with_the_name_of_the_setting(
    given: dict[str, Any], named: str, tiny_tokenizer: ThinkTokenizer
) -> None:
    with pytest.raises(UserError) as refused:
        DecodingSettings(max_new_tokens=40, **given).check(tiny_tokenizer)
    assert str(refused.value).startswith(named) and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"answer_reserve": 37},
        {"thinking": False, "answer_reserve": 900},  # without effect, which is said elsewhere
        {"thinking_budget": 11, "cut_message": " I must stop."},
        {"thinking_budget": 6, "extend": 1},
        {"thinking_budget": 5, "min_thinking": 5},
        {"thinking_budget": 900},
        {"cut_message": "x" * 900},
    ],
)
def test_what_can_be_done_is_taken(given: dict[str, Any], tiny_tokenizer: ThinkTokenizer) -> None:
    DecodingSettings(max_new_tokens=40, **given).check(tiny_tokenizer)


def test_generate_and_fit_refuse_them_before_they_load_anything(
    in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match="answer_reserve: '512' leaves no room"):
        decoding_settings(build_parser().read(["--prompt", "a", "--answer_reserve", "512"]))
    key = "model.evaluation.decoding.answer_reserve"
    assert main(["fit", "--config", "configs/demo.yaml", f"--{key}", "200"]) == 2
    assert f"error: {key}: '200' leaves no room" in capsys.readouterr().err
    assert list(in_tmp.iterdir()) == []
