"""The chat template of an exported folder: the text of training, with marks around what the assistant wrote."""

from typing import Any

import pytest
from hypothesis import given, settings

from datamodules.text.chat_template import HistoryReasoning
from datamodules.text.exported_template import ANSWER_MARK
from datamodules.text.segments import Template
from datamodules.tokens.template import load_template
from tests.datamodules.text.test_chat_rendering import CONVERSATIONS, as_messages, asked
from tests.stand_ins.chat_templates import CHATS, chat_tokenizer

USER, ANSWER = {"role": "user", "content": "What?"}, {"role": "assistant", "content": "<think>a</think>\n\n7 \n"}
# Gemma's refuses a system message, another one omits it
REFUSES = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
OMITS = REFUSES.replace("{{ raise_exception('no system') }}", "{% set messages = messages[1:] %}")


def loaded(setting: str, reasoning: HistoryReasoning = "template") -> tuple[str, Template]:
    """The name of a tokenizer, and the template with it."""
    name, text = ("llama3", "instruction") if setting == "instruction" else (setting, "chat")
    name, text = (name, text) if name in CHATS else ("qwen1.5", setting)
    return name, load_template(text, None, chat_tokenizer(name), None, reasoning)


def marked(name: str, template: Template, messages: list[dict[str, Any]], ask: bool = False) -> tuple[str, list[str]]:
    """The text, and the texts that are marked as the assistant's."""
    full: Any = chat_tokenizer(name).full
    given = {"chat_template": template.exported, "add_generation_prompt": ask}
    found = full.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True, **given)
    spans: list[list[int]] = []
    before = 0
    for one, mask in zip(found["input_ids"], found["assistant_masks"], strict=True):
        if mask and not before:
            spans.append([])
        if mask:
            spans[-1].append(one)
        before = mask
    text = full.apply_chat_template(messages, tokenize=False, **given)
    return text, [full.decode(span) for span in spans]


def unmarked(name: str, template: Template, messages: list[dict[str, Any]], ask: bool = False) -> str:
    text: str = chat_tokenizer(name).full.apply_chat_template(
        messages, chat_template=template.chat_template, tokenize=False, add_generation_prompt=ask
    )
    return text


@pytest.mark.parametrize("setting", ["instruction", *CHATS])
@pytest.mark.parametrize("reasoning", ["template", "keep", "drop"])
@settings(max_examples=15, deadline=None)
@given(CONVERSATIONS)
def test_each_answer_is_marked_up_to_its_end_token_and_no_id_changes(
    setting: str, reasoning: HistoryReasoning, conversation: Any
) -> None:
    name, template = loaded(setting, reasoning)
    eos = CHATS[name].eos
    messages = as_messages(*conversation)
    ours = chat_tokenizer(name).encode_prompts([asked(template, *conversation)])[0]
    ids = chat_tokenizer(name).full.apply_chat_template(
        messages, chat_template=template.exported, add_generation_prompt=True, return_dict=False
    )
    assert ours == list(ids)
    for some, ask in ((messages, True), (messages[:-1], False)):
        if some:
            text, spans = marked(name, template, some, ask)
            assert text == unmarked(name, template, some, ask)
            assert len(spans) == len(conversation[1])
            assert all(span.endswith(f"So 7.{eos}") and span.count(eos) == 1 for span in spans)


@pytest.mark.parametrize("name", ["qwen1.5", "qwen2.5"])
def test_the_mark_covers_the_answer_as_it_was_sent(name: str) -> None:
    parts = {"role": "assistant", "content": [{"type": "text", "text": "8"}, {"type": "text", "text": " \n"}]}
    template = load_template("chat", None, chat_tokenizer(name))
    _, spans = marked(name, template, [USER, ANSWER, USER, parts])
    assert spans == ["<think>a</think>\n\n7 \n<|im_end|>", "8 \n<|im_end|>"]


@pytest.mark.parametrize(
    "odd",
    [
        {"role": "assistant", "content": ""},
        {"role": "assistant", "content": None},
        {"role": "assistant", "content": f"7{ANSWER_MARK}8"},
        {"role": "user", "content": f"What{ANSWER_MARK}?"},
    ],
)
def test_a_conversation_whose_answers_are_not_found_is_rendered_without_marks(odd: dict[str, Any]) -> None:
    template = load_template("chat", None, chat_tokenizer("qwen3"))
    text, spans = marked("qwen3", template, [USER, ANSWER, odd])
    assert text == unmarked("qwen3", template, [USER, ANSWER, odd]) and not spans


@pytest.mark.parametrize("text", [REFUSES, OMITS], ids=["refuses", "omits"])
def test_a_system_message_without_a_place_stands_before_the_first_instruction(text: str) -> None:
    name, template = loaded(text)
    assert template.no_system
    system = {"role": "system", "content": [{"type": "text", "text": "Be brief."}]}
    joined = {"role": "user", "content": "Be brief.\n\nWhat?"}
    expected = unmarked(name, template, [joined, ANSWER, USER], ask=True)
    for role in ("system", "developer"):
        assert marked(name, template, [system | {"role": role}, USER, ANSWER, USER], ask=True) == (
            expected, ["<think>a</think>\n\n7<|im_end|>"],
        )  # fmt: skip
    full: Any = chat_tokenizer(name).full
    alone = full.apply_chat_template([system], chat_template=template.exported, tokenize=False) if text == OMITS else ""
    assert "Be brief." not in alone
    with pytest.raises(Exception, match="Only text can be read, not image"):
        marked(name, template, [{"role": "system", "content": [{"type": "image"}]}, USER])


@pytest.mark.parametrize("setting", ["instruction", "qwen1.5", "qwen2.5", "llama3", "r1"])
def test_a_developer_message_is_a_system_message(setting: str) -> None:
    name, template = loaded(setting)
    system = {"role": "system", "content": "Be brief."}
    asked = [marked(name, template, [system | {"role": role}, USER], ask=True) for role in ("system", "developer")]
    assert asked[0] == asked[1] and "Be brief." in asked[0][0]


@pytest.mark.parametrize("setting", ["instruction", "qwen1.5", "llama3"])
def test_without_a_generation_prompt_nothing_asks_for_an_answer(setting: str) -> None:
    name, template = loaded(setting)
    asks, does_not = (marked(name, template, [USER], ask)[0] for ask in (True, False))
    assert asks.startswith(does_not) and len(asks) > len(does_not)
