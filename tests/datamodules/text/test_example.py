"""A row read into a RawExample and parsed into an Example."""

from typing import Any

import pytest

from datamodules.text.example import Columns, parse_example
from datamodules.text.malformed import MalformedPolicy, MalformedResponse
from datamodules.text.segments import Role, Segment, render
from datamodules.text.steps import StepSettings
from datamodules.text.tags import Tags
from errors import UserError
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


TURNS = [
    {"from": "human", "value": "2 + 2?"},
    {"from": "gpt", "value": "<think>a</think>4"},
    {"from": "human", "value": "sure?"},
    {"from": "gpt", "value": "yes"},
]


@pytest.mark.parametrize("beside", [{}, {"instruction": None}, {"response": "<think>a</think>4", "instruction": None}])
def test_conversations_are_the_fallback(beside: dict[str, Any]) -> None:
    raw = Columns().read({"conversations": TURNS, **beside}, 5)
    assert (raw.row_id, raw.group) == ("5", "all")
    parsed = parse_example(raw)
    assert (parsed.instruction, parsed.answer) == ("2 + 2?", "4")


def test_columns_come_before_conversations() -> None:
    for row in (ROW, ROW | {"response": ""}):
        raw = Columns().read(row | {"conversations": TURNS}, 0)
        assert (raw.instruction, raw.response) == (row["instruction"], row["response"])


@pytest.mark.parametrize(
    "turns",
    [
        None,
        "text",
        {},
        [],
        [None, 3, "x"],
        [{}],
        [{"from": ["human"], "value": "a"}],
        [{"from": "human"}, {"from": {}}],
    ],
    ids=str,
)
def test_malformed_conversations_give_no_texts(turns: Any) -> None:
    raw = Columns().read({"conversations": turns}, 0)
    assert (raw.instruction, raw.response) == (None, None)


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


@pytest.mark.parametrize(
    ("row", "name"),
    [
        ({"conversation_id": "c", "uuid": "u", "id": 1}, "c"),
        ({"conversation_id": None, "uuid": "u", "id": 1}, "u"),
        ({"conversation_id": "", "id": 0}, "0"),
        ({"uuid": ""}, "7"),
        ({}, "7"),
        ({"id": "a\udcffb"}, "a\ufffdb"),
    ],
)
def test_a_row_is_named_by_its_id_columns_else_by_its_position(row: dict[str, Any], name: str) -> None:
    assert Columns().read(row, 7).row_id == name


def test_broken_bytes_in_names_are_replaced() -> None:
    raw = Columns().read(ROW | {"conversation_id": "\ud800", "difficulty": "\udcff"}, 0)
    assert (raw.row_id, raw.group) == ("\ufffd", "\ufffd")


@pytest.mark.parametrize(("value", "group"), [("hard", "hard"), (None, "all"), ("", "all"), (3, "3")])
def test_the_group_is_the_difficulty_as_a_text(value: Any, group: str) -> None:
    assert Columns().read(ROW | {"difficulty": value}, 0).group == group


def test_missing_columns_are_named_beside_the_present_ones() -> None:
    with pytest.raises(UserError, match=r"'response' is not in the data.*Set data.columns.*question, instruction"):
        Columns().check(["question", "instruction"])
    Columns().check(["conversations"])
    Columns(response="output").check(["instruction", "output"])


def test_literal_tags_in_an_instruction_are_its_text() -> None:
    row = ROW | {"instruction": "What does <think>x</think> mean?"}
    parsed = parse_example(Columns().read(row, 0))
    prompt = render(parsed, TEMPLATE, StepSettings(split="none"))[0]
    assert prompt == Segment(Role.PROMPT, "### Instruction: What does <think>x</think> mean?\n### Response: ")
    assert (parsed.thoughts, parsed.notes) == (["\nEasy.\n"], ())
