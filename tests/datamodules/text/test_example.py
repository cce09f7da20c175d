"""A RawExample parsed into an Example."""

import pytest

from datamodules.layouts.conversation import Message, RawExample
from datamodules.text.example import Turn, each_answer, parse_example
from datamodules.text.malformed import MalformedPolicy, MalformedResponse
from datamodules.text.response import Passage
from datamodules.text.segments import Role, Segment, render
from datamodules.text.steps import StepSettings
from datamodules.text.tags import Tags
from tests.conftest import TEMPLATE, raw_example

ROW = {
    "instruction": "2 + 2?",
    "response": "<think>\nEasy.\n</think>\n\n4",
    "difficulty": "easy",
    "conversation_id": "a1",
}


def test_a_row_becomes_an_example() -> None:
    parsed = parse_example(raw_example(ROW, 5))
    assert (parsed.instruction, parsed.notes) == ("2 + 2?", ())
    assert (parsed.thoughts, parsed.answer) == (["\nEasy.\n"], "\n\n4")


def test_an_example_is_parsed_with_the_given_tags_and_policy() -> None:
    row = {"instruction": "a <think>", "response": "[T]b"}
    policy = MalformedPolicy.of("repair", {"unclosed": "repair", "no_answer": "keep"})
    parsed = parse_example(raw_example(row, 0), Tags("[T]", "[/T]"), policy)
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
        parse_example(raw_example(ROW | broken, 0))
    assert str(refused.value) == reason


def test_rows_without_a_column_are_refused() -> None:
    for column in ("instruction", "response"):
        with pytest.raises(MalformedResponse, match="no columns of a known layout"):
            parse_example(raw_example({name: value for name, value in ROW.items() if name != column}, 0))


def test_literal_tags_in_an_instruction_are_its_text() -> None:
    row = ROW | {"instruction": "What does <think>x</think> mean?"}
    parsed = parse_example(raw_example(row, 0))
    prompt = render(parsed, TEMPLATE, StepSettings(split="none"))[0]
    assert prompt == Segment(Role.PROMPT, "### Instruction: What does <think>x</think> mean?\n### Response: ")
    assert (parsed.thoughts, parsed.notes) == (["\nEasy.\n"], ())


def chat(*texts: object, system: object = None) -> RawExample:
    """A conversation in which user and assistant alternate."""
    first = (Message("system", system),) if system is not None else ()
    speakers = [Message("assistant" if k % 2 else "user", text) for k, text in enumerate(texts)]
    return RawExample({}, "c7", "all", (*first, *speakers))


def test_a_conversation_has_its_system_prompt_and_its_history() -> None:
    parsed = parse_example(chat("Hi", "<think>b</think>Hello", "2 + 2?", "<think>a</think>4", system="Be brief."))
    assert (parsed.system, parsed.instruction, parsed.answer, parsed.notes) == ("Be brief.", "2 + 2?", "4", ())
    assert parsed.history == (Turn("Hi", (Passage("b", thought=True), Passage("Hello", thought=False))),)
    assert parse_example(chat("Hi", "<think>b</think>Hello", system=" ")).system is None


def test_earlier_answers_drop_a_row_only_if_they_are_supervised() -> None:
    raw = chat("Hi", "Hello</think>!", "So?", "Never <think>closed", "2 + 2?", "<think>a</think>4")
    parsed = parse_example(raw)
    assert [turn.passages[0].text for turn in parsed.history] == ["Hello", "Never "]
    assert parsed.notes == (
        "earlier answer: no opening tag (repaired)",
        "earlier answer: think block never closed (repaired)",
    )
    with pytest.raises(MalformedResponse, match="think block never closed"):
        parse_example(raw, turns="all")
    both = parse_example(chat("Hi", "Hello</think>!", "2 + 2?", "a</think>4"), turns="all")
    assert both.notes == ("no opening tag (repaired)",)


def test_reasoning_in_a_field_is_a_thought_before_the_text() -> None:
    messages = Message("user", "2 + 2?"), Message("assistant", "4", "Two and two."), Message("user", "Sure?")
    raw = RawExample({}, "1", "all", (*messages, Message("assistant", "Yes.", "Hm.")))
    parsed = parse_example(raw)
    assert parsed.passages == (Passage("Hm.", thought=True), Passage("Yes.", thought=False))
    assert parsed.history[0].passages == (Passage("Two and two.", thought=True), Passage("4", thought=False))
    with pytest.raises(MalformedResponse, match="reasoning is not a text"):
        parse_example(raw._replace(messages=(messages[0], Message("assistant", "4", ["Hm."]))))
    with pytest.raises(MalformedResponse, match="no think block"):
        parse_example(raw._replace(messages=(messages[0], Message("assistant", "4", " "))))


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (chat("Hi", 3, "a", "<think>b</think>c"), "an earlier message is not a text"),
        (chat(None, "b", "a", "<think>b</think>c"), "an earlier message is not a text"),
        (chat(" ", "b", "a", "<think>b</think>c"), "empty earlier message"),
        (chat("Hi", "", "a", "<think>b</think>c"), "empty response"),
        (chat("Hi\udcff", "b", "a", "<think>b</think>c"), "not valid UTF-8"),
        (chat("a", "<think>b</think>c", system=["Be brief."]), "system prompt is not a text"),
        (chat("a", "<think>b</think>c", system="\udcff"), "not valid UTF-8"),
        (chat("Hi" * 2**21 + "!", "b", "a", "<think>b</think>c"), "a text of more than 4,194,304 characters"),
        (RawExample({}, "1", "all", chat("a", "b", "c", "<think>d</think>e").messages[1:]), "do not alternate"),
    ],
)  # fmt: skip
def test_a_conversation_with_a_message_that_cannot_be_used_is_dropped_by_name(raw: RawExample, reason: str) -> None:
    with pytest.raises(MalformedResponse, match=reason):
        parse_example(raw)


def test_each_answer_is_an_example_with_what_was_said_before_it() -> None:
    raw = chat("a", "b", "c", "d", system="s")
    first, second = each_answer(raw)
    assert (first.row_id, first.messages) == ("c7/1", raw.messages[:3])
    assert (second.row_id, second.messages) == ("c7/2", raw.messages)
    assert each_answer(raw._replace(messages=raw.messages[:2]))[0].messages == raw.messages[:2]
