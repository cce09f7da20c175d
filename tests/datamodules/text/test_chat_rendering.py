"""Prompts of several turns, against transformers' own rendering of the same messages."""

import time
from typing import Any
from unicodedata import normalize

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules.text.chat_rendering import cut_at_names, guarded, unused_characters
from datamodules.text.chat_template import HistoryReasoning
from datamodules.text.malformed import MalformedResponse
from datamodules.text.response import Passage
from datamodules.text.segments import Role, Segment, Template, answer_segments
from datamodules.text.steps import StepSettings
from datamodules.tokens.template import load_template
from tests.stand_ins.chat_templates import CHATS, chat_tokenizer

WHOLE = StepSettings(split="none")
NAMES = ("<|im_start|>", "<|im_end|>", "<|eot_id|>", "<｜User｜>", "<think>", "</think>", "<|im_")
# A question may be any text. A text of an answer holds no tag: a client would take it for one
PLAIN = st.text(min_size=1, max_size=12).filter(lambda text: text.strip() and "<" not in text)
SPACED = st.tuples(st.sampled_from(["", " ", "\n\n", "\t"]), PLAIN, st.sampled_from(["", "  ", "\n"])).map("".join)
ANSWERS = st.lists(st.tuples(SPACED, st.booleans()), min_size=1, max_size=3).map(
    lambda parts: (*(Passage(text, thought) for text, thought in parts), Passage("\n\nSo 7.", thought=False))
)
CONVERSATIONS = st.tuples(st.none() | SPACED, st.lists(st.tuples(SPACED, ANSWERS), max_size=3), SPACED)


def merged(passages: tuple[Passage, ...]) -> tuple[Passage, ...]:
    """The passages as a parser gives them: neighbouring texts are one."""
    result: list[Passage] = []
    for passage in passages:
        if result and not passage.thought and not result[-1].thought:
            passage = Passage(result.pop().text + passage.text, thought=False)
        result.append(passage)
    return tuple(result)


def as_messages(system: str | None, turns: Any, last: str) -> list[dict[str, str]]:
    messages = [{"role": "system", "content": system}] if system is not None else []
    for question, passages in turns:
        answer = "".join(f"<think>{text}</think>" if thought else text for text, thought in passages)
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return [*messages, {"role": "user", "content": last}]


def asked(template: Template, system: str | None, turns: Any, last: str) -> list[Segment]:
    history = [(question, answer_segments(merged(passages), WHOLE)) for question, passages in turns]
    return template.conversation(history, last, system)


def theirs(name: str, text: str, messages: list[dict[str, str]]) -> str:
    """The prompt of transformers, without the opening tag that the model learns to write."""
    shown: str = chat_tokenizer(name).full.apply_chat_template(
        messages, chat_template=text, tokenize=False, add_generation_prompt=True
    )
    return shown.removesuffix("<think>\n")


@pytest.mark.parametrize("name", [name for name in CHATS if name != "reasoning field"])
@settings(max_examples=60, deadline=None)
@given(CONVERSATIONS)
def test_the_ids_of_a_conversation_are_those_of_the_models_own_template(name: str, conversation: Any) -> None:
    tokenizer = chat_tokenizer(name)
    template = load_template("chat", None, tokenizer)
    assert not template.no_system and not template.no_history
    ours = tokenizer.encode_prompts([asked(template, *conversation)])[0]
    text = theirs(name, CHATS[name].template, as_messages(*conversation))
    assert ours == tokenizer.full(text, add_special_tokens=False).input_ids


@pytest.mark.parametrize("setting", ["instruction", *CHATS])
@pytest.mark.parametrize("reasoning", ["template", "keep", "drop"])
@settings(max_examples=25, deadline=None)
@given(CONVERSATIONS)
def test_an_exported_template_asks_as_in_training(setting: str, reasoning: HistoryReasoning, conversation: Any) -> None:
    name = "llama3" if setting == "instruction" else setting
    tokenizer = chat_tokenizer(name)
    template = load_template("instruction" if setting == "instruction" else "chat", None, tokenizer, None, reasoning)
    messages = as_messages(*conversation)
    ours = tokenizer.encode_prompts([asked(template, *conversation)])[0]
    ids = tokenizer.full.apply_chat_template(
        messages, chat_template=template.chat_template, add_generation_prompt=True, return_dict=False
    )
    assert ours == list(ids)


@pytest.mark.parametrize("name", CHATS)
@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.sampled_from([*NAMES, "a", " ", "\n", "é"]), min_size=1), min_size=2, max_size=2))
def test_names_of_tokens_in_a_message_stay_text(name: str, words: list[list[str]]) -> None:
    tokenizer = chat_tokenizer(name)
    template = load_template("chat", None, tokenizer)
    first, last = (f"x{''.join(one)}x" for one in words)
    answer = (Passage("Hm.", thought=True), Passage("So <|im_end|> 7.", thought=False))
    typed, plain = asked(template, first, [(first, answer)], last), asked(template, "s", [("q", answer)], "r")
    assert [one.text for one in typed if one.control] == [one.text for one in plain if one.control]
    text = theirs(name, template.chat_template, as_messages(first, [(first, answer)], last))
    assert "".join(one.text for one in typed) == text
    decoded = tokenizer.decode(tokenizer.encode_prompts([typed])[0])
    assert normalize("NFC", decoded) == normalize("NFC", text)


@pytest.mark.parametrize("setting", ["instruction", "chat", "Ask: {{ instruction | trim }}\nSay:"])
@pytest.mark.parametrize("name", CHATS)
@settings(max_examples=20, deadline=None)
@given(st.text(max_size=20))
def test_a_conversation_of_one_message_is_the_prompt_of_that_message(name: str, setting: str, text: str) -> None:
    template = load_template(setting, "Be brief." if setting == "chat" else None, chat_tokenizer(name))
    assert template.conversation([], text) == [one for one in template.prompt(text) if one.text]


SAID = (Passage("Is it 3?", thought=True), Passage("\n\n", thought=False), Passage("Or 4?", thought=True))


@pytest.mark.parametrize(
    ("name", "reasoning", "kept"),
    [
        ("qwen1.5", "template", True), ("qwen2.5", "template", True), ("llama3", "template", True),
        ("qwen3", "template", False), ("r1", "template", False), ("reasoning field", "template", True),
        ("qwen3", "keep", True), ("r1", "keep", True), ("reasoning field", "keep", True), ("qwen2.5", "keep", True),
        ("qwen3", "drop", False), ("llama3", "drop", False), ("reasoning field", "drop", False),
    ],
)  # fmt: skip
def test_earlier_reasoning_is_kept_or_dropped_as_the_setting_says(
    name: str, reasoning: HistoryReasoning, kept: bool
) -> None:
    tokenizer = chat_tokenizer(name)
    template = load_template("chat", None, tokenizer, None, reasoning)
    assert template.drops_reasoning == (not kept)
    said = (*SAID, Passage("\n\nIt is 4.", thought=False))
    prompt = asked(template, None, [("What?", said)], "Sure?")
    text, ids = "".join(one.text for one in prompt), tokenizer.encode_prompts([prompt])[0]
    assert ("Is it 3?" in text, "Or 4?" in text) == (kept, kept) and "It is 4." in text
    assert ids.count(tokenizer.open_id) == ids.count(tokenizer.close_id) == (2 if kept else 0)
    if kept and not (name == "reasoning field" and reasoning == "template"):
        assert "<think>Is it 3?</think>\n\n<think>Or 4?</think>\n\nIt is 4." in text


@pytest.mark.parametrize("name", CHATS)
@pytest.mark.parametrize("setting", ["chat", "instruction"])
def test_dropped_reasoning_leaves_the_answer_without_the_line_ends_before_it(name: str, setting: str) -> None:
    template = load_template(setting, None, chat_tokenizer(name), None, "drop")
    said = (Passage("Let me see. ", thought=False), *SAID, Passage("\n\n It is 4.\n", thought=False))
    text, plain = (
        "".join(one.text for one in asked(template, None, [("What?", answer)], "Sure?"))
        for answer in (said, (Passage(" It is 4.\n", thought=False),))
    )
    assert text == plain and "It is 4." in text


def test_reasoning_that_a_client_sends_in_a_field_is_read_as_a_block() -> None:
    field = [
        {"role": "user", "content": "What?"},
        {"role": "assistant", "content": "4", "reasoning_content": "3?"},
        {"role": "user", "content": "Sure?"},
    ]
    joined = [field[0], {"role": "assistant", "content": "<think>3?</think>4"}, field[2]]
    for name in CHATS:
        for reasoning in ("template", "keep", "drop"):
            text = load_template("chat", None, chat_tokenizer(name), None, reasoning).chat_template
            assert theirs(name, text, field) == theirs(name, text, joined), (name, reasoning)


def test_the_system_prompt_of_a_row_wins_over_the_setting() -> None:
    template = load_template("chat", "Be kind.", chat_tokenizer("qwen2.5"))
    for system, words in ((None, "Be kind."), ("Be brief.", "Be brief.")):
        text = "".join(one.text for one in template.conversation([], "Hi", system))
        assert text.startswith(f"<|im_start|>system\n{words}<|im_end|>") and text.count("system") == 1
    plain = load_template("instruction", None, chat_tokenizer("llama3"))
    assert [one.text for one in plain.conversation([], "Hi", "Be brief.")] == [
        "<|begin_of_text|>", "### Instruction: Be brief.\n\nHi\n### Response: ",
    ]  # fmt: skip


@pytest.mark.parametrize("system", [None, "Be kind."])
def test_the_system_prompt_of_a_row_takes_the_place_that_a_template_has(system: str | None) -> None:
    text = "{% if system %}Rule: {{ system }}\n{% endif %}Ask: {{ instruction | trim }}\nSay:"
    template = load_template(text, system, chat_tokenizer("llama3"))
    begin = Segment(Role.PROMPT, "<|begin_of_text|>", control=True)
    rule = f"Rule: {system}\n" if system else ""
    assert template.conversation([], " a ") == template.prompt(" a ")
    assert template.prompt("a") == [begin, Segment(Role.PROMPT, f"{rule}Ask: a\nSay:")]
    typed = template.conversation([(" a\n", [Segment(Role.ANSWER, "b")])], "c", "<|eot_id|>")
    assert [one.text for one in typed] == [
        "<|begin_of_text|>", "Rule: <|eot_id|>\nAsk: a\nSay:b", "<|eot_id|>",
        "\nRule: <|eot_id|>\nAsk: c\nSay:",
    ]  # fmt: skip
    assert [one.control for one in typed] == [True, False, True, False]


def test_the_beginning_of_text_comes_once_before_all_turns() -> None:
    template = load_template("instruction", None, chat_tokenizer("llama3"))
    prompt = asked(template, None, [("a", (Passage("b", thought=False),))], "c")
    assert [one.text for one in prompt] == [
        "<|begin_of_text|>", "### Instruction: a\n### Response: b", "<|eot_id|>",
        "\n### Instruction: c\n### Response: ",
    ]  # fmt: skip


@pytest.mark.parametrize("name", CHATS)
@pytest.mark.parametrize("setting", ["chat", "instruction"])
def test_the_turns_around_supervised_answers_end_with_the_end_token(name: str, setting: str) -> None:
    tokenizer = chat_tokenizer(name)
    template = load_template(setting, None, tokenizer, None, "keep")
    first, second = template.around_answers(["What <|im_end|>?", "Sure?"], "Be brief.")
    assert second[0] == Segment(Role.END)
    whole = template.conversation([("What <|im_end|>?", [Segment(Role.ANSWER, "4")])], "Sure?", "Be brief.")
    before, after = ("".join(one.text for one in part) for part in (first, second[1:]))
    assert f"{before}4{CHATS[name].eos}{after}" == "".join(one.text for one in whole)


def test_an_end_of_turn_that_does_not_end_a_response_is_not_supervised() -> None:
    tokenizer = chat_tokenizer("qwen1.5")
    template = load_template("chat", None, tokenizer)
    template.variables["eos_token"] = "<|endoftext|>"  # type: ignore[index]
    try:
        _, second = template.around_answers(["What?", "Sure?"])
    finally:
        template.variables["eos_token"] = "<|im_end|>"  # type: ignore[index]
    assert second[0] == Segment(Role.PROMPT, "<|im_end|>", control=True)


@pytest.mark.parametrize(
    ("chat", "no_system", "no_history"),
    [
        ("{{ messages[-1].content }}:", "omits the system prompt of the row", "omits earlier messages"),
        (
            "{% for m in messages %}{% if m.role != 'user' %}{{ raise_exception('only users') }}{% endif %}"
            "{{ m.content }}{% endfor %}:",
            "data.template fails for a system prompt (only users)",
            "data.template fails for earlier messages (only users)",
        ),
    ],
)
def test_a_template_that_knows_one_message_only_says_what_it_cannot_do(
    chat: str, no_system: str, no_history: str
) -> None:
    template = load_template("{% set a = messages %}" + chat, None, chat_tokenizer("qwen1.5"))
    assert no_system in template.no_system and no_history in template.no_history
    assert template.prompt("Hi") and template.conversation([], "Hi")


def test_a_guard_breaks_every_name_where_names_overlap() -> None:
    names = ("<a<b>", "<b>", "<b>c", "<")
    text = guarded("<a<b>c<<b>", names, "\ue123")
    assert [part for part, name in cut_at_names(text.replace("<\ue123", ""), names) if name] == []
    assert text.replace("\ue123", "") == "<a<b>c<<b>" and "<b>" not in text and "<a" not in text


def test_a_guard_is_a_character_that_no_text_has() -> None:
    assert unused_characters(["\ue010", "a\ue011"], 2) == ["\ue012", "\ue013"]
    every = "".join(map(chr, [*range(0xE000, 0xF900), *range(0xF0000, 0xFFFFE), *range(0x100000, 0x10FFFE)]))
    with pytest.raises(MalformedResponse, match="every private-use character"):
        unused_characters([every], 1)


@pytest.mark.parametrize("hostile", ["<|im_end|>", "<", "<|im_", "\ue010", "</think>"])
def test_a_hostile_megabyte_takes_no_quadratic_time(hostile: str) -> None:
    template = load_template("chat", None, chat_tokenizer("llama3"))
    text = hostile * (2**20 // len(hostile))
    template.conversation([], "warm")
    start = time.perf_counter()
    template.conversation([(text, [Segment(Role.ANSWER, text)])], "Sure?")
    assert time.perf_counter() - start < 20  # quadratic time would be minutes
