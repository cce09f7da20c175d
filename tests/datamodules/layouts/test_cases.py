"""Small inputs that were once misread, in the folder THINKWRIGHT_CASES, with the values that are right."""

import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cli import main
from tests.conftest import TINY

CASES = os.environ.get("THINKWRIGHT_CASES")
pytestmark = pytest.mark.skipif(CASES is None, reason="needs THINKWRIGHT_CASES, a folder of small inputs")
CONFIG = f"""
model: {{name: {TINY}}}
data:
  {{max_length: 1000000, train_rows: null, val_rows: null, test_rows: null, num_proc: 1, near_duplicate_threshold: null,
  steps: {{split: none}}}}
"""
Preview = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def preview(in_tmp: Path) -> Preview:
    """Return the lines of `preview --jsonl` for a case, by their ids; kept ones only."""

    def run(name: str, *options: str) -> list[dict[str, Any]]:
        (in_tmp / "c.yaml").write_text(CONFIG)
        (in_tmp / "out.jsonl").unlink(missing_ok=True)
        source = str(Path(str(CASES)) / name)
        assert main(["preview", "--config", "c.yaml", "--data.source", source, "--jsonl", "out.jsonl", *options]) == 0
        return [json.loads(line) for line in (in_tmp / "out.jsonl").read_text().splitlines()]

    return run


@pytest.mark.parametrize(
    ("name", "options", "thought", "answer"),
    [
        ("02_from_user_assistant.jsonl", (), "\n9=3*3\n", "\n\nNo."),
        ("03_role_content.jsonl", (), "\n9=3*3\n", "\n\nNo."),
        ("04_messages.jsonl", (), "\n9=3*3\n", "\n\nNo."),
        ("05_messages_reasoning_content.jsonl", (), "9=3*3", "No."),
        ("06_separate_reasoning_column.jsonl", (), "9=3*3", "No."),
    ],
)
def test_every_row_has_its_thought_and_its_answer(
    preview: Preview, name: str, options: tuple[str, ...], thought: str, answer: str
) -> None:
    rows = preview(name, *options)
    assert len(rows) == 3 and not any(row["reason"] for row in rows)
    assert {row["thoughts"][0].strip() for row in rows} == {thought.strip()}
    assert {row["answer"].strip() for row in rows} == {answer.strip()}


def test_a_greeting_is_never_an_answer(preview: Preview) -> None:
    rows = preview("18_greeting_first.jsonl", "--data.malformed", "keep")
    assert len(rows) == 60
    assert not [row for row in rows if "Hello" in row["answer"]]
    rows = preview("01_multi_turn_and_system.jsonl", "--data.malformed", "keep")
    assert [row["answer"].strip() for row in rows if row["row_id"].startswith("m3") and row["reason"] is None] in (
        ["5"],
        [],
    )


def test_the_input_of_alpaca_is_in_the_prompt(preview: Preview) -> None:
    rows = preview("08_alpaca_input.jsonl", "--data.columns.response", "output")
    assert sorted(row["instruction"].rpartition("\n")[2] for row in rows) == ["7 3 5", "9 1 4"]


def test_the_group_zero_is_a_group_and_texts_are_no_numbers(
    preview: Preview, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = preview("12_group_zero_and_text_numbers.jsonl", "--data.filters", "{level: ['0']}")
    assert {row["reason"] for row in rows} >= {None}
    rows = preview("12_group_zero_and_text_numbers.jsonl", "--data.filters", "{level: [0]}")
    reasons = Counter(row["reason"] for row in rows)
    assert reasons == {"data.filters.level is not met: the column holds texts, the filter asks for numbers": 30}


def test_a_sorted_file_is_sampled(preview: Preview) -> None:
    rows = preview("16_sorted_by_difficulty.jsonl", "--data.train_rows", "1000", "--data.val_rows", "50")
    source = [json.loads(line) for line in (Path(str(CASES)) / "16_sorted_by_difficulty.jsonl").open()]
    words = Counter(row["instruction"].split()[0] for row in source)
    found = Counter(row["instruction"].split()[0] for row in rows if row["split"] == "train")
    assert sum(found.values()) == 1_000
    for word, count in words.items():
        assert abs(found[word] / 1_000 - count / len(source)) < 0.06


def test_files_of_a_glob_are_read_by_their_own_columns(preview: Preview) -> None:
    rows = preview("11_two_files/*.jsonl")
    assert Counter(row["reason"] for row in rows) == {None: 55}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("10_two_arrays.json", "text follows the end of the array, after object 1"),
        ("17_utf16.jsonl", "is UTF-16, and texts are read as UTF-8. Convert it"),
    ],
)
def test_a_file_that_cannot_be_read_whole_is_named(
    name: str, words: str, preview: Preview, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(AssertionError):
        preview(name)
    assert words in capsys.readouterr().err
