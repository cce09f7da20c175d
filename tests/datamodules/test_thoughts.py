import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamodules.thoughts import NO_OPENING_TAG, Columns, Malformed, Span, example, parse, unparse
from errors import UserError

ROW = {
    "instruction": "2 + 2?",
    "response": "<think>\nEasy.\n</think>\n\n4",
    "difficulty": "easy",
    "conversation_id": "a1",
}


def thought(text: str) -> Span:
    return Span(text, thought=True)


def plain(text: str) -> Span:
    return Span(text, thought=False)


@pytest.mark.parametrize(
    ("response", "spans"),
    [
        ("<think>\nA. B.\n</think>\n\nx = 7", (thought("\nA. B.\n"), plain("\n\nx = 7"))),
        ("<think>a</think><think>b</think>c", (thought("a"), thought("b"), plain("c"))),
        ("<think>a</think>\n<think>b</think>c", (thought("a"), plain("\n"), thought("b"), plain("c"))),
        ("Let me see. <think>a</think> 4", (plain("Let me see. "), thought("a"), plain(" 4"))),
        ("just 4", (plain("just 4"),)),
        ("<think>\r\na\r\n</think>\r\n4\u2028", (thought("\r\na\r\n"), plain("\r\n4\u2028"))),
    ],
)
def test_well_formed_responses_are_taken_apart_and_put_together(response: str, spans: tuple[Span, ...]) -> None:
    assert parse(response) == (spans, ())
    assert unparse(spans) == response


def test_a_missing_opening_tag_is_repaired_and_said() -> None:
    spans, repairs = parse("I add.\n</think>\n\n4")
    assert spans == (thought("I add.\n"), plain("\n\n4"))
    assert repairs == (NO_OPENING_TAG,)


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        ("", "empty response"),
        (" \n", "empty response"),
        ("<think>on and on", "think block never closed"),
        ("<think>a</think>b<think>c", "think block never closed"),
        ("<think>a<think>b</think>c</think>4", "think block inside a think block"),
        ("<think>a</think>4</think>", "closing tag without an opening one"),
        ("a</think>b</think>c", "closing tag without an opening one"),
        ("<think>\n\n</think>\n\n4", "empty think block"),
        ("<think>a</think>", "no answer after the thoughts"),
        ("<think>a</think>\n\n", "no answer after the thoughts"),
    ],
)
def test_malformed_responses_are_refused_with_their_reason(response: str, reason: str) -> None:
    with pytest.raises(Malformed, match=reason):
        parse(response)


PIECES = st.lists(st.sampled_from(["<think>", "</think>", "a", " ", "\n", "<", "think>", "é"]), max_size=12)


@given(PIECES)
def test_whatever_parses_comes_back_byte_for_byte(pieces: list[str]) -> None:
    response = "".join(pieces)
    try:
        spans, repairs = parse(response)
    except Malformed:
        return
    assert unparse(spans) == ("<think>" if repairs else "") + response
    assert all(span.text.strip() for span in spans if span.thought)


def test_real_answers_come_back_byte_for_byte(real_rows: list[dict[str, str]]) -> None:
    repaired = 0
    for row in real_rows:
        spans, repairs = parse(row["response"])
        repaired += bool(repairs)
        assert unparse(spans) == ("<think>" if repairs else "") + row["response"]
    assert repaired == 79


def test_a_row_becomes_an_example() -> None:
    parsed = example(ROW, Columns(), 5)
    assert (parsed.row_id, parsed.group, parsed.instruction) == ("a1", "easy", "2 + 2?")
    assert (parsed.thoughts, parsed.answer) == (["\nEasy.\n"], "\n\n4")


def test_conversations_are_the_fallback() -> None:
    turns = [{"from": "human", "value": "2 + 2?"}, {"from": "gpt", "value": "4"}, {"from": "human", "value": "sure?"}]
    parsed = example({"conversations": turns}, Columns(), 5)
    assert (parsed.instruction, parsed.answer, parsed.row_id, parsed.group) == ("2 + 2?", "4", "5", "all")


@pytest.mark.parametrize("broken", [{"response": None}, {"instruction": 3}, {"instruction": " "}, {"response": ["4"]}])
def test_rows_without_texts_are_refused(broken: dict[str, object]) -> None:
    with pytest.raises(Malformed):
        example(ROW | broken, Columns(), 0)


def test_missing_columns_are_named_with_those_there_are() -> None:
    with pytest.raises(UserError, match=r"'response' is not in the data.*Set data.columns.*question, instruction"):
        Columns().check(["question", "instruction"])
    Columns().check(["conversations"])
    Columns(response="output").check(["instruction", "output"])
