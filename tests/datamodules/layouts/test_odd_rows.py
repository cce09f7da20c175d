"""Rows with odd names and values: read rightly or dropped under a reason. No reasoning is lost in silence."""

import json
import tracemalloc
from typing import Any

import pytest

from datamodules.layouts.columns import Candidates, Columns
from datamodules.layouts.conversation import Message
from datamodules.layouts.messages import GREETING
from datamodules.layouts.reader import RowReader
from datamodules.text.example import parse_example
from datamodules.text.malformed import MalformedResponse
from errors import UserError
from tests.conftest import raw_example

Q, THOUGHT, A = "Is 9 prime?", "9=3*3", "No."
WHOLE = f"<think>{THOUGHT}</think>{A}"
RIGHT = (Message("user", Q), Message("assistant", WHOLE))
APART = (Message("user", Q), Message("assistant", A, THOUGHT))
ASKED = {"role": "user", "content": Q}
PAIR = [ASKED, {"role": "assistant", "content": WHOLE}]
Row = dict[str, Any]


def answered(**fields: Any) -> Row:
    """A row of messages whose answer has these fields."""
    return {"messages": [ASKED, {"role": "assistant", "content": A, **fields}]}


@pytest.mark.parametrize(
    ("row", "messages"),
    [
        ({"Question": Q, "Complex_CoT": THOUGHT, "Response": A}, APART),
        ({"Problem": Q, "Solution": WHOLE}, RIGHT),
        ({"Question": Q, "Solution": THOUGHT, "Answer": A}, APART),
        ({"Instruction": Q, "Input": "", "Output": WHOLE}, RIGHT),
        ({"Question": Q, "Chain of Thought": THOUGHT, "Answer": A}, APART),
        ({"Messages": PAIR}, RIGHT),
        ({"messages": [{"Role": "User", "Content": Q}, {"Role": "Assistant", "Content": WHOLE}]}, RIGHT),
        (answered(reasoningContent=THOUGHT), APART),
        (answered(Reasoning=THOUGHT), APART),
    ],
    ids=str,
)
def test_capitals_and_spaces_in_a_name_make_no_difference(row: Row, messages: tuple[Message, ...]) -> None:
    assert raw_example(row, 0).messages == messages


def test_a_column_with_the_exact_name_comes_before_one_with_capitals() -> None:
    assert raw_example({"Question": "other", "question": Q, "answer": WHOLE}, 0).messages == RIGHT


def test_messages_that_are_json_texts_are_read_as_messages() -> None:
    assert raw_example({"messages": [json.dumps(one) for one in PAIR]}, 0).messages == RIGHT


def test_an_empty_text_hides_no_other_text_of_a_message() -> None:
    turns = [{"role": "user", "content": "", "value": Q}, {"role": "", "from": "gpt", "content": None, "value": WHOLE}]
    assert raw_example({"messages": turns}, 0).messages == RIGHT


def test_a_system_message_without_a_value_is_none() -> None:
    assert raw_example({"messages": [{"role": "system", "content": None}, *PAIR]}, 0).messages == RIGHT


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (answered(reasoning=["a", "b"]), "reasoning is not a text (reasoning)"),
        (answered(thinking={"text": "a"}), "reasoning is not a text (thinking)"),
        ({"question": Q, "reasoning": ["a"], "answer": A}, "reasoning is not a text (reasoning)"),
        ({**answered(), "reasoning": ["a"]}, "reasoning is not a text (reasoning)"),
        ({**answered(reasoning="a"), "thinking": "b"}, "reasoning in a column and, different, in a message"),
        (
            {"messages": [ASKED, {"role": "thinking", "content": "a"}, {"role": "gpt", "content": A, "cot": "b"}]},
            "reasoning in several places of an answer",
        ),
        (
            {"messages": [ASKED, *[{"role": "thinking", "content": one} for one in "ab"], PAIR[1]]},
            "a message of reasoning that no answer follows",
        ),
        ({"messages": [*PAIR, {"role": "thinking", "content": "a"}]}, "a message of reasoning that no answer follows"),
        (
            {"messages": [{"role": "thinking", "content": "a"}, *PAIR]},
            "a message of reasoning that no answer follows",
        ),
        ({"instruction": [ASKED], "input": "9", "output": WHOLE}, "a prompt of messages beside a text in input"),
    ],
    ids=str,
)
def test_reasoning_or_input_that_would_be_lost_drops_the_row_by_name(row: Row, problem: str) -> None:
    raw = raw_example(row, 0)
    assert (raw.problem, raw.messages) == (problem, ())


@pytest.mark.parametrize("flag", [True, 0.5, 3, None, float("nan")])
def test_a_flag_or_a_number_is_no_reasoning(flag: Any) -> None:
    assert raw_example({"question": Q, "thinking": flag, "answer": WHOLE}, 0).messages == RIGHT
    assert raw_example(answered(reasoning_content=THOUGHT, thinking=flag), 0).messages == APART
    assert raw_example({"question": Q, "thinking": flag, "cot": THOUGHT, "answer": A}, 0).messages == APART


def test_a_column_of_reasoning_belongs_to_the_last_answer_of_any_prompt() -> None:
    assert raw_example({"prompt": [ASKED], "completion": A, "reasoning": THOUGHT}, 0).messages == APART
    row = answered() | {"reasoning": THOUGHT}
    row["messages"].append({"role": "user", "content": "Sure?"})
    assert raw_example(row, 0).messages == APART


def test_reasoning_in_several_columns_after_the_first_rows_is_counted() -> None:
    reader = RowReader(Columns())
    names = ("question", "reasoning", "thinking", "answer")
    one, both = (dict(zip(names, values, strict=True)) for values in ((Q, THOUGHT, "", A), (Q, "a", "b", A)))
    reader.check([one] * 50)
    assert reader.read(one, 0)[0].messages == APART
    assert reader.read(both, 1)[0].problem == "reasoning in several columns: reasoning, thinking"
    with pytest.raises(UserError, match="look like reasoning, and one is read"):
        reader.check([both])


def test_reasoning_with_tags_never_replaces_another_answer() -> None:
    with pytest.raises(MalformedResponse, match="nested"):
        parse_example(raw_example(answered(reasoning=f"<think>{THOUGHT}</think>Yes."), 0))
    named = parse_example(raw_example(answered(reasoning="The tag `<think>` is meant. No. Yes."), 0))
    assert (named.thoughts, named.answer) == (["The tag `<think>` is meant. No. Yes."], A)
    with pytest.raises(MalformedResponse, match="reasoning in the response and, different"):
        parse_example(raw_example(answered(reasoning="a", content="say `<think>` now"), 0))
    assert parse_example(raw_example(answered(reasoning=WHOLE), 0)).answer == A


@pytest.mark.parametrize("right", [True, 1, 1.0, "true", "TRUE", " Yes\n", "Correct", "1"])
@pytest.mark.parametrize("wrong", [False, 0, 0.0, None, float("nan"), "", "no", "incorrect", "0", [True]])
def test_verdicts_of_every_type_choose_the_right_candidate(right: Any, wrong: Any) -> None:
    reader = RowReader(Columns(), Candidates("all", "verdicts"))
    read = reader.read({"problem": Q, "all": ["<think>Hm.</think>Yes.", WHOLE], "verdicts": [wrong, right]}, "a")
    assert [(one.row_id, one.messages) for one in read] == [("a/2", RIGHT)]


def test_rows_that_all_have_other_columns_keep_the_memory_flat() -> None:
    reader = RowReader(Columns())
    tracemalloc.start()
    for k in range(5_000):
        assert reader.read({"question": Q, "answer": WHOLE, f"extra {k}": k}, k)[0].messages == RIGHT
    used = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert used < 1_500_000


def test_candidates_and_verdicts_may_be_json_texts_and_keep_their_notes() -> None:
    reader = RowReader(Columns(), Candidates("all", "verdicts"))
    prompt = [{"role": "assistant", "content": "Hello!"}, ASKED]
    row = {"prompt": prompt, "all": json.dumps(["<think>Hm.</think>Yes.", WHOLE]), "verdicts": "[false, true]"}
    (read,) = reader.read(row, "a")
    assert (read.row_id, read.messages, read.notes) == ("a/2", RIGHT, (GREETING,))
    assert reader.read(row | {"all": "[cut"}, "a")[0].problem == "no candidates"


@pytest.mark.parametrize("column", ["image", "Images", "audio"])
def test_a_row_with_an_image_in_a_column_is_refused_by_name(column: str) -> None:
    problem = f"a value in the column {column} (data.columns.ignore leaves it out)"
    for value in (b"png", {"bytes": b"png"}, [{"bytes": b"png"}], "a.png", object()):
        assert raw_example({"messages": PAIR, column: value}, 0).problem == problem
        assert raw_example({"messages": PAIR, column: value}, 0, Columns(ignore=[column])).messages == RIGHT
    for nothing in (None, "", [], b"", [None]):
        assert raw_example({"messages": PAIR, column: nothing}, 0).messages == RIGHT
