"""Columns of a source, read into a RawExample."""

from typing import Any

import pytest

from datamodules.layouts.columns import Columns
from datamodules.text.example import parse_example
from errors import UserError

ROW = {
    "instruction": "2 + 2?",
    "response": "<think>\nEasy.\n</think>\n\n4",
    "difficulty": "easy",
    "conversation_id": "a1",
}


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
