"""The texts around messages: put together they are what the template gives, or there are none."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from datamodules.text.malformed import MalformedResponse
from datamodules.text.tags import Tags
from datamodules.text.turn_texts import SYSTEM, Turns, turn_texts
from tests.stand_ins.chat_templates import CHATS, chat_tokenizer


def rendering(template: str) -> Any:
    full: Any = chat_tokenizer("qwen1.5").full

    def render(messages: Sequence[Mapping[str, str]]) -> str:
        try:
            text: str = full.apply_chat_template(
                list(messages), chat_template=template, tokenize=False, add_generation_prompt=True
            )
        except Exception as error:
            raise MalformedResponse(str(error)) from error
        return text

    return render


def test_the_texts_of_a_template() -> None:
    texts = turn_texts(rendering(CHATS["qwen2.5"].template), Tags())
    asks = "<|im_end|>\n<|im_start|>assistant\n"
    next_question = "<|im_end|>\n<|im_start|>user\n"
    assert texts.with_system == Turns(f"<|im_start|>system\n{SYSTEM}{next_question}", asks, asks, next_question)
    assert texts.turns.before.startswith("<|im_start|>system\nYou are Qwen")
    assert texts.several
    assert texts.around_thought is None  # this template does not read the field


def test_reasoning_that_a_template_keeps() -> None:
    texts = turn_texts(rendering(CHATS["reasoning field"].template.replace("'</' + 'think>", "'</think>")), Tags())
    assert texts.around_thought == ("<think>", "</think>\n")
    turns = [("1?", "So.", "1."), ("2?", "", "2.")]
    assert texts.prompt("Be brief.", turns, "3?") == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n1?<|im_end|>\n"
        "<|im_start|>assistant\n<think>So.</think>\n1.<|im_end|>\n<|im_start|>user\n2?<|im_end|>\n"
        "<|im_start|>assistant\n2.<|im_end|>\n<|im_start|>user\n3?<|im_end|>\n<|im_start|>assistant\n"
    )


@pytest.mark.parametrize(
    "template",
    [
        "{% if messages | length > 2 %}{{ raise_exception('one question') }}{% endif %}Q: {{ messages[-1].content }}",
        "{% for m in messages %}{{ loop.index }}. {{ m.content }}\n{% endfor %}",
        "{{ messages[0].content if messages[0].role == 'system' }} {{ messages[-1].content }}",
    ],
)
def test_a_template_without_the_same_texts_in_each_turn_has_single_questions(template: str) -> None:
    try:
        texts = turn_texts(rendering(template), Tags())
    except MalformedResponse:
        assert "loop.index" in template or "length" in template  # a system message has no place, or moves the numbers
        return
    assert not texts.several
    assert texts.prompt("", [], "Why?") == rendering(template)([{"role": "user", "content": "Why?"}])


def test_a_template_that_omits_the_question_has_no_texts() -> None:
    with pytest.raises(MalformedResponse, match="omits a message"):
        turn_texts(rendering("Hello"), Tags())
