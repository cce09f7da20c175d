"""A RawExample parsed into an Example."""

import pytest

from datamodules.layouts.columns import Columns
from datamodules.text.example import parse_example
from datamodules.text.malformed import MalformedPolicy, MalformedResponse
from datamodules.text.segments import Role, Segment, render
from datamodules.text.steps import StepSettings
from datamodules.text.tags import Tags
from tests.conftest import TEMPLATE

ROW = {
    "instruction": "2 + 2?",
    "response": "<think>\nEasy.\n</think>\n\n4",
    "difficulty": "easy",
    "conversation_id": "a1",
}


def test_a_row_becomes_an_example() -> None:
    parsed = parse_example(Columns().read(ROW, 5))
    assert (parsed.instruction, parsed.notes) == ("2 + 2?", ())
    assert (parsed.thoughts, parsed.answer) == (["\nEasy.\n"], "\n\n4")


def test_an_example_is_parsed_with_the_given_tags_and_policy() -> None:
    row = {"instruction": "a <think>", "response": "[T]b"}
    policy = MalformedPolicy.of("repair", {"unclosed": "repair", "no_answer": "keep"})
    parsed = parse_example(Columns().read(row, 0), Tags("[T]", "[/T]"), policy)
    assert (parsed.instruction, parsed.thoughts, parsed.answer) == ("a <think>", ["b"], "")
    assert parsed.notes == ("think block never closed (repaired)", "no answer after the thoughts (kept)")


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ({"response": None}, "instruction or response is not a text"),
        ({"response": ["4"]}, "instruction or response is not a text"),
        ({"response": b"4"}, "instruction or response is not a text"),
        ({"instruction": 3}, "instruction or response is not a text"),
        ({"instruction": None}, "instruction or response is not a text"),
        ({"instruction": ""}, "empty instruction"),
        ({"instruction": " \n"}, "empty instruction"),
        ({"instruction": "\ufeff\u200b\n"}, "empty instruction"),
        ({"response": ""}, "empty response"),
        ({"instruction": "a\udcff"}, "not valid UTF-8"),
        ({"response": "<think>a\udcff</think>b"}, "not valid UTF-8"),
    ],
)
def test_rows_without_texts_are_refused(broken: dict[str, object], reason: str) -> None:
    with pytest.raises(MalformedResponse) as refused:
        parse_example(Columns().read(ROW | broken, 0))
    assert str(refused.value) == reason


def test_rows_without_a_column_are_refused() -> None:
    for column in ("instruction", "response"):
        with pytest.raises(MalformedResponse, match="instruction or response is not a text"):
            parse_example(Columns().read({name: value for name, value in ROW.items() if name != column}, 0))


def test_literal_tags_in_an_instruction_are_its_text() -> None:
    row = ROW | {"instruction": "What does <think>x</think> mean?"}
    parsed = parse_example(Columns().read(row, 0))
    prompt = render(parsed, TEMPLATE, StepSettings(split="none"))[0]
    assert prompt == Segment(Role.PROMPT, "### Instruction: What does <think>x</think> mean?\n### Response: ")
    assert (parsed.thoughts, parsed.notes) == (["\nEasy.\n"], ())
