"""Rows of any layout, read into RawExamples."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datamodules.layouts.columns import (
    ANSWERS,
    MESSAGES,
    QUESTIONS,
    Candidates,
    Columns,
    looks_like_reasoning,
)
from datamodules.layouts.conversation import Message
from datamodules.layouts.messages import GREETING, UNANSWERED
from datamodules.layouts.reader import RowReader
from datamodules.text.example import parse_example
from datamodules.text.malformed import MalformedResponse
from errors import UserError
from tests.conftest import raw_example

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
    raw = raw_example({"conversations": TURNS[:2], **beside}, 5)
    assert (raw.row_id, raw.group) == ("5", "all")
    parsed = parse_example(raw)
    assert (parsed.instruction, parsed.answer) == ("2 + 2?", "4")


def test_columns_come_before_conversations() -> None:
    for row in (ROW, ROW | {"response": ""}):
        raw = raw_example(row | {"conversations": TURNS}, 0)
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
    raw = raw_example({"conversations": turns}, 0)
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
    assert raw_example(row, 7).row_id == name


def test_broken_bytes_in_names_are_replaced() -> None:
    raw = raw_example(ROW | {"conversation_id": "\ud800", "difficulty": "\udcff"}, 0)
    assert (raw.row_id, raw.group) == ("\ufffd", "\ufffd")


@pytest.mark.parametrize(
    ("value", "group"), [("hard", "hard"), (None, "all"), ("", "all"), (3, "3"), (0, "0"), (False, "False")]
)
def test_the_group_is_the_difficulty_as_a_text(value: Any, group: str) -> None:
    assert raw_example(ROW | {"difficulty": value}, 0).group == group


# One conversation in every layout

Q, THOUGHT, A = "Is 9 prime?", "9=3*3", "No."
WHOLE = f"<think>{THOUGHT}</think>{A}"
RIGHT = (Message("user", Q), Message("assistant", WHOLE))
APART = (Message("user", Q), Message("assistant", A, THOUGHT))
SYSTEM = Message("system", "Be brief.")
PAIR = [{"role": "user", "content": Q}, {"role": "assistant", "content": WHOLE}]
FIELDS = [{"role": "user", "content": Q}, {"role": "assistant", "content": A, "reasoning_content": THOUGHT}]

LAYOUTS: dict[str, tuple[dict[str, Any], tuple[Message, ...]]] = {
    "instruction and response": ({"instruction": Q, "response": WHOLE}, RIGHT),
    "prompt and completion": ({"prompt": Q, "completion": WHOLE}, RIGHT),
    "prompt and completion as messages": ({"prompt": PAIR[:1], "completion": PAIR[1:]}, RIGHT),
    "question and answer": ({"question": Q, "answer": WHOLE}, RIGHT),
    "problem and solution": ({"problem": Q, "solution": WHOLE}, RIGHT),
    "question, solution, answer": ({"question": Q, "solution": THOUGHT, "answer": A}, APART),
    "messages": ({"messages": PAIR, "source": "x"}, RIGHT),
    "from and value": ({"conversations": [{"from": "human", "value": Q}, {"from": "gpt", "value": WHOLE}]}, RIGHT),
    "from user and assistant": (
        {"conversations": [{"from": "user", "value": Q}, {"from": "assistant", "value": WHOLE}]},
        RIGHT,
    ),
    "struct of lists": ({"conversations": {"from": ["human", "gpt"], "value": [Q, WHOLE]}}, RIGHT),
    "JSON text": ({"messages": json.dumps(PAIR)}, RIGHT),
    "texts in turn": ({"conversation": [Q, WHOLE]}, RIGHT),
    "a message as a mapping of one": ({"prompt": PAIR[:1], "completion": WHOLE}, RIGHT),
    "parts": ({"messages": [PAIR[0], {"role": "assistant", "content": [{"type": "text", "text": WHOLE}]}]}, RIGHT),
    "thinking part": (
        {
            "messages": [
                PAIR[0],
                {
                    "role": "assistant",
                    "content": [{"type": "thinking", "thinking": THOUGHT}, {"type": "text", "text": A}],
                },
            ]
        },
        APART,
    ),
    "reasoning_content": ({"messages": FIELDS}, APART),
    "thinking": ({"messages": [PAIR[0], {"role": "assistant", "content": A, "thinking": THOUGHT}]}, APART),
    "reasoning message": (
        {"messages": [PAIR[0], {"role": "reasoning", "content": THOUGHT}, {"role": "assistant", "content": A}]},
        APART,
    ),
    "reasoning column": ({"question": Q, "reasoning": THOUGHT, "answer": A}, APART),
    "reasoning column beside messages": (
        {"messages": [PAIR[0], {"role": "assistant", "content": A}], "reasoning": THOUGHT},
        APART,
    ),
    "input, reasoning_content, content": ({"input": Q, "reasoning_content": THOUGHT, "content": A}, APART),
    "trajectory and attempt": (
        {
            "solution": "x",
            "question": Q,
            "cot_type": "math",
            "deepseek_thinking_trajectory": THOUGHT,
            "deepseek_attempt": A,
        },
        APART,
    ),
    "Alpaca": (
        {"instruction": "Sort.", "input": "3 1", "output": WHOLE},
        (Message("user", "Sort.\n\n3 1"), RIGHT[1]),
    ),
    "Alpaca without input": ({"instruction": Q, "input": "", "output": WHOLE}, RIGHT),
    "system column": ({"system": "Be brief.", "messages": PAIR}, (SYSTEM, *RIGHT)),
    "system message": ({"messages": [{"role": "system", "content": "Be brief."}, *PAIR]}, (SYSTEM, *RIGHT)),
    "system of a text": ({"system_prompt": "Be brief.", "instruction": Q, "response": WHOLE}, (SYSTEM, *RIGHT)),
    "empty system": ({"messages": [{"role": "system", "content": " "}, *PAIR]}, RIGHT),
    "solution beside messages": ({"problem": Q, "solution": "s", "answer": "a", "messages": PAIR}, RIGHT),
    "null columns": ({"instruction": None, "response": None, "messages": PAIR}, RIGHT),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_is_found_by_itself_in_any_order_of_its_columns(name: str) -> None:
    row, messages = LAYOUTS[name]
    for items in (list(row.items()), list(row.items())[::-1]):
        raw = raw_example(dict(items))
        assert (raw.problem, raw.messages) == ("", messages)


def test_what_was_taken_and_what_was_not_read_is_said() -> None:
    raw = raw_example({"problem": Q, "solution": "s", "messages": PAIR, "id": 3, "source": "x"})
    assert raw.layout == "messages (found by name); not read: problem, solution, source"
    assert raw_example(LAYOUTS["reasoning column"][0]).layout == (
        "instruction in question, response in answer, reasoning (found by name)"
    )


def test_a_greeting_before_the_first_question_and_a_question_without_an_answer_are_left_out_and_noted() -> None:
    greeting, open_question = {"role": "assistant", "content": "Hello!"}, {"role": "user", "content": "Why?"}
    raw = raw_example({"messages": [greeting, *PAIR, open_question]})
    assert raw.messages == RIGHT
    assert raw.notes == (GREETING, UNANSWERED)
    assert parse_example(raw).notes == raw.notes


@pytest.mark.parametrize(
    ("turns", "reason"),
    [
        ([*PAIR, {"role": "tool", "content": "4"}], "tool calls"),
        ([PAIR[0], {"role": "assistant", "content": None, "tool_calls": [{}]}], "tool calls"),
        ([PAIR[0], {"role": "assistant", "content": [{"type": "tool_use", "id": 1}]}], "tool calls"),
        ([{"role": "user", "content": [{"type": "image", "url": "x"}]}, PAIR[1]], "content of type 'image'"),
        ([PAIR[0], PAIR[0], PAIR[1]], "two messages of one speaker in a row"),
        ([*PAIR, {"role": "system", "content": "x"}, *PAIR], "a system message inside the conversation"),
        ([PAIR[0]], "no answer of the assistant to a message of the user"),
        ([PAIR[1]], "no answer of the assistant to a message of the user"),
        ([{"role": "narrator", "content": "x"}, *PAIR], "a message of 'narrator', a role that is not known"),
        ([{"content": "x"}, *PAIR], "a message without a role"),
        ([PAIR[0], {"role": "assistant", "content": 3}], "a message is not a text"),
        ([*PAIR, 3], "a message is neither a text nor a mapping"),
        ("no JSON", "a conversation is text that is not JSON"),
        ([PAIR[0], FIELDS[1] | {"thinking": "other"}], "reasoning in several fields: reasoning_content, thinking"),
    ],
    ids=str,
)  # fmt: skip
def test_a_conversation_that_cannot_be_trained_has_a_named_reason(turns: Any, reason: str) -> None:
    raw = raw_example({"messages": turns})
    assert (raw.messages, raw.problem) == ((), reason)
    with pytest.raises(MalformedResponse) as refused:
        parse_example(raw)
    assert str(refused.value) == reason


TEXT = st.text('ab [{"é\n', max_size=20)
ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXT,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["role", "from", "content", "value", "type", "text", "x"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.dictionaries(st.sampled_from([*MESSAGES, *QUESTIONS, *ANSWERS, "reasoning", "system", "id"]), ANY, max_size=6)
)
def test_any_row_gives_messages_in_turn_or_a_reason(row: dict[str, Any]) -> None:
    raw = raw_example(row)
    assert bool(raw.problem) != bool(raw.messages)
    roles = [message.role for message in raw.messages if message.role != "system"]
    assert roles == ["user", "assistant"] * (len(roles) // 2)


@settings(max_examples=100)
@given(st.lists(st.tuples(TEXT.filter(str.strip), TEXT), min_size=1, max_size=4), st.booleans())
def test_a_conversation_is_the_same_in_every_container(pairs: list[tuple[str, str]], system: bool) -> None:
    turns = [(role, text) for pair in pairs for role, text in zip(("user", "assistant"), pair, strict=True)]
    turns = [("system", "Be brief."), *turns] if system else turns
    names = {"user": "human", "assistant": "gpt", "system": "system"}
    containers: list[dict[str, Any]] = [
        {"messages": [{"role": role, "content": text} for role, text in turns]},
        {"conversations": [{"from": names[role], "value": text} for role, text in turns]},
        {"conversations": {"from": [names[role] for role, _ in turns], "value": [text for _, text in turns]}},
        {"messages": json.dumps([{"content": text, "role": role} for role, text in turns])},
        {"chat": [{"role": role, "content": [{"type": "text", "text": text}]} for role, text in turns]},
    ]
    read = {raw_example(row).messages for row in containers}
    assert read == {tuple(Message(role, text) for role, text in turns)}  # type: ignore[arg-type]


# Columns that the user names


def test_named_columns_come_first_and_are_not_found_by_other_names() -> None:
    row = {"instruction": "i", "response": "r", "q": Q, "a": WHOLE, "messages": PAIR}
    assert raw_example(row, 0, Columns(instruction="q", response="a")).messages == RIGHT
    assert raw_example(row, 0, Columns(messages="messages")).messages == RIGHT
    assert raw_example({"x": PAIR}, 0, Columns(messages="x")).messages == RIGHT
    assert raw_example(row | {"my": "t"}, 0, Columns(reasoning="my")).messages[-1].reasoning == "t"
    fields = [PAIR[0], {"role": "assistant", "content": A, "my": THOUGHT, "thinking": "other"}]
    assert raw_example({"messages": fields}, 0, Columns(reasoning="my")).messages == APART
    assert raw_example({"messages": fields}, 0, Columns(ignore=["thinking"])).messages[-1].reasoning is None
    assert (
        raw_example({"instruction": Q, "input": "x", "output": WHOLE}, 0, Columns(ignore=["input"])).messages == RIGHT
    )


def check(rows: list[dict[str, Any]], columns: Columns = Columns()) -> None:  # noqa: B008
    RowReader(columns).check(rows)


def test_columns_without_a_layout_are_an_error_that_names_them() -> None:
    with pytest.raises(UserError, match=r"has the columns a, b, which are no layout.*Set data\.columns\.messages"):
        check([{"a": 1, "b": 2}] * 3)
    with pytest.raises(UserError, match=r"it lacks q\. "):
        check([{"a": 1}], Columns(instruction="q"))
    check([{"a": 1}, {"instruction": "x", "response": "y"}])  # not only the first row counts
    with pytest.raises(UserError, match=r"^data\.columns: 'b\.jsonl'"):
        RowReader(Columns()).check([{"a": 1}], "b.jsonl")


@pytest.mark.parametrize("name", ["system", "input"])
def test_a_named_column_that_the_data_lacks_is_an_error(name: str) -> None:
    rows = [{"instruction": Q, "response": WHOLE}, {"instruction": Q, "response": WHOLE, "sys": "Be brief."}]
    with pytest.raises(UserError, match=rf"^data\.columns\.{name}: 'sis' is not among the columns.*response, sys"):
        check(rows, Columns(**{name: "sis"}))  # type: ignore[arg-type]
    check(rows, Columns(**{name: "sys"}))  # type: ignore[arg-type]


def test_two_columns_of_reasoning_are_an_error_until_one_is_chosen() -> None:
    row = {"question": Q, "gemini_thinking_trajectory": "g", "gemini_attempt": "h",
           "deepseek_thinking_trajectory": THOUGHT, "deepseek_attempt": A}  # fmt: skip
    with pytest.raises(UserError, match=r"^data\.columns\.reasoning: 'gemini_thinking.*look like reasoning"):
        check([row])
    for columns in (
        Columns(reasoning="deepseek_thinking_trajectory"),
        Columns(ignore=["gemini_thinking_trajectory"]),
    ):
        check([row], columns)
        assert raw_example(row, 0, columns).messages == APART
    check([{"question": Q, "answer": A, "thinking": True, "reasoning": THOUGHT}])  # a switch, not a text


@pytest.mark.parametrize("name", ["reasoning_content", "thinking", "reasoning", "cot", "deepseek_thinking_trajectory"])
def test_names_of_reasoning(name: str) -> None:
    assert looks_like_reasoning(name)


@pytest.mark.parametrize("name", ["reasoning_effort", "thinking_budget", "cot_type", "reasoning_tokens", "unthinking"])
def test_names_that_only_begin_like_reasoning(name: str) -> None:
    assert not looks_like_reasoning(name)


# Candidates

ROW_OF_THREE = {
    "uuid": "u", "problem": Q, "generations": [WHOLE, "<think>b</think>c", "<think>d</think>e"],
    "correctness": [False, True, True], "messages": PAIR,
}  # fmt: skip


@pytest.mark.parametrize(
    ("keep", "verdicts", "ids"),
    [(1, "correctness", ["u/2"]), (9, "correctness", ["u/2", "u/3"]), (2, None, ["u/1", "u/2"])],
)
def test_right_candidates_become_rows(keep: int, verdicts: str | None, ids: list[str]) -> None:
    found = RowReader(Columns(), Candidates("generations", verdicts, keep)).read(ROW_OF_THREE, 0)
    assert [raw.row_id for raw in found] == ids
    for raw in found:
        text = ROW_OF_THREE["generations"][int(raw.row_id[-1]) - 1]
        assert raw.messages == (Message("user", Q), Message("assistant", text))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"correctness": [False] * 3}, "no candidate with a true verdict"),
        ({"correctness": [True]}, "another number of verdicts than of candidates"),
        ({"correctness": None}, "another number of verdicts than of candidates"),
        ({"generations": []}, "no candidates"),
        ({"generations": None}, "no candidates"),
    ],
    ids=str,
)
def test_a_row_without_a_right_candidate_has_a_named_reason(change: dict[str, Any], reason: str) -> None:
    (raw,) = RowReader(Columns(), Candidates("generations", "correctness")).read(ROW_OF_THREE | change, 0)
    assert (raw.row_id, raw.problem) == ("u", reason)


def test_settings_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(UserError, match=r"data\.columns\.messages"):
        Columns(messages="m", response="r").check()
    with pytest.raises(UserError, match=r"data\.columns\.ignore"):
        Columns(reasoning="r", ignore=["r"]).check()
    with pytest.raises(UserError, match=r"data\.candidates\.verdicts"):
        Candidates(verdicts="v").check()
    with pytest.raises(UserError, match=r"data\.candidates\.keep"):
        Candidates("c", keep=0).check()
