import re
from itertools import islice

import pytest

from datamodules.rows import builtin
from datamodules.text.example import parse_example
from tests.conftest import raw_example

MAGPIE = {
    "conversation_id",
    "instruction",
    "response",
    "conversations",
    "difficulty",
    "input_quality",
    "task_category",
    "language",
}


def test_a_row_is_a_function_of_seed_and_index() -> None:
    first = list(islice(builtin.rows(3), 50))
    assert first == list(islice(builtin.rows(3), 50))
    assert first[17] == builtin.row(3, 17)
    assert first != list(islice(builtin.rows(4), 50))


@pytest.mark.parametrize("style", ["think", "plain"])
def test_rows_have_magpies_columns(style: builtin.Style) -> None:
    for row in islice(builtin.rows(0, style), 200):
        assert set(row) >= MAGPIE
        assert row["conversations"] == [
            {"from": "human", "value": row["instruction"]},
            {"from": "gpt", "value": row["response"]},
        ]


def test_every_calculation_is_right_or_corrected() -> None:
    """Each `a op b = c` in the reasoning holds, unless "Wait" follows."""
    calculation = re.compile(r"(?<![\d.*/+-] )\b(\d+) ([-+*/]) (\d+) = (\d+)\b(?! [-+*/])([^.]*\. Wait)?")
    right = slips = 0
    for row in islice(builtin.rows(1), 5_000):
        for a, operator, b, c, wait in calculation.findall(row["response"]):
            a, b, c = int(a), int(b), int(c)
            value = {"+": a + b, "-": a - b, "*": a * b, "/": a / b if b else None}[operator]
            if wait:
                slips += 1
                assert value != c
            else:
                right += 1
                assert value == c, row["response"]
    assert right > 10_000
    assert slips > 100


def test_equations_hold_for_their_answer() -> None:
    checked = 0
    for row in islice(builtin.rows(2), 2_000):
        found = re.search(r"Okay, we have (\S+.*?) = (.*?)\.", row["response"])
        answer = re.search(r"\n\n([xyn]) = (\d+)$", row["response"])
        if found and answer:
            sides = [re.sub(r"(\d)([(xyn])", r"\1*\2", side).strip() for side in found.groups()]
            left, right = (eval(side, {answer[1]: int(answer[2])}) for side in sides)
            assert left == right, row["instruction"]
            checked += 1
    assert checked > 800


def test_held_out_problems_are_in_no_training_row_of_any_seed_or_style() -> None:
    held_out: set[str] = set()
    trained: set[str] = set()
    for seed in (0, 1, 2):
        for style in ("think", "plain"):
            for row in islice(builtin.rows(seed, style), 4_000):
                key = row["conversation_id"].split("/")[0]
                (held_out if builtin.is_held_out(row) else trained).add(key)
    assert not held_out & trained
    assert 0.08 < len(held_out) / (len(held_out) + len(trained)) < 0.12


def test_the_side_of_a_problem_ignores_its_wording() -> None:
    """Rows with one equation in other words, letters or order are on one side."""
    sides: dict[str, set[bool]] = {}
    for row in islice(builtin.rows(5), 20_000):
        if row["conversation_id"].startswith("add:"):
            sides.setdefault(row["conversation_id"].split("/")[0], set()).add(builtin.is_held_out(row))
    assert len(sides) > 500
    assert all(len(side) == 1 for side in sides.values())


def test_think_rows_parse_into_one_thought_and_a_short_answer() -> None:
    for position, row in enumerate(islice(builtin.rows(0), 500)):
        parsed = parse_example(raw_example(row, position))
        assert len(parsed.thoughts) == 1
        assert len(parsed.answer.strip()) < 20
        assert not parsed.notes


def test_plain_rows_have_no_tags_and_are_of_three_kinds() -> None:
    rows = list(islice(builtin.rows(0, "plain"), 1_000))
    assert not any("think>" in row["response"] + row["instruction"] for row in rows)
    worked = [row for row in rows if row["instruction"].startswith(builtin.SHOW_WORK)]
    drills = [row for row in rows if re.match(r"\d+ [-+*/] \d+ = ", row["response"])]
    at_once = len(rows) - len(worked) - len(drills)
    assert min(len(worked), len(drills), at_once) > 80


def test_a_check_is_written_exactly_if_the_instruction_asks_for_it() -> None:
    rows = list(islice(builtin.rows(0), 1_000))
    asked = [row["instruction"].endswith("Check your answer.") for row in rows]
    assert asked == ["Check: " in row["response"] for row in rows]
    assert 0.2 < sum(asked) / len(asked) < 0.3


def test_difficulty_counts_operations() -> None:
    by_family = {row["conversation_id"].split(":")[0]: row["difficulty"] for row in islice(builtin.rows(0), 500)}
    assert by_family["add"] == "very easy"
    assert by_family["linear"] == "easy"
    assert by_family["both sides"] == "medium"
    assert by_family["bracket and more"] == "hard"
