"""What a body asks for, and how each mistake in it is refused before the model runs."""

import json
from dataclasses import replace
from typing import Any

import pytest

from commands.openai_api.errors import ApiError
from commands.openai_api.fields import Fields
from commands.openai_api.request import Asked, Served, read_body
from datamodules.tokens.tokenizer import ThinkTokenizer

HI = [{"role": "user", "content": "Hi"}]


def read(served: Served, chat: bool = True, **body: Any) -> Asked:
    given = {"messages": HI} if chat else {"prompt": "Hi"}
    return read_body(Fields(json.dumps(given | body).encode()), served, chat)


def refused(served: Served, **body: Any) -> ApiError:
    with pytest.raises(ApiError) as caught:
        read(served, **body)
    assert caught.value.status == 400 and "\n" not in str(caught.value)
    return caught.value


def test_what_is_given_becomes_requests_of_the_engine(served: Served) -> None:
    asked = read(
        served, temperature=0.5, top_p=0.9, max_tokens=7, seed=3, n=2, stop="x", stream=True, thinking_token_budget=5,
        stream_options={"include_usage": True}, user="me", presence_penalty=0, tools=None,
    )  # fmt: skip
    assert [(one.seed, one.limit) for one in asked.requests] == [(3, 7), (4, 7)]
    settings = asked.decoding.settings
    assert (settings.temperature, settings.top_p, settings.thinking_budget) == (0.5, 0.9, 5)
    assert (settings.max_new_tokens, asked.stop, asked.stream, asked.usage) == (served.context, ("x",), True, True)


def test_what_is_not_given_is_that_of_the_command_line(served: Served) -> None:
    asked = read(served, max_completion_tokens=None)
    assert asked.requests[0].limit == 20 and asked.decoding.settings.temperature == 0 and not asked.stream
    assert read(served).requests[0].seed != asked.requests[0].seed, "samples differ without a seed"


@pytest.mark.parametrize(
    ("effort", "budget", "thinking"),
    [("none", None, False), ("minimal", 64, True), ("low", 256, True), ("medium", 1024, True), ("high", 300, True)],
)
def test_an_effort_is_a_budget(effort: str, budget: int | None, thinking: bool, served: Served) -> None:
    served = replace(served, settings=replace(served.settings, thinking_budget=300, min_thinking=10, max_new_tokens=50))
    settings = read(served, reasoning_effort=effort).decoding.settings
    assert settings.thinking == thinking
    assert settings.thinking_budget == (300 if effort == "none" else budget)


def test_a_template_switch_that_many_clients_know_turns_thinking_off(served: Served) -> None:
    assert not read(served, chat_template_kwargs={"enable_thinking": False}).decoding.settings.thinking
    assert read(served, grammar=True, cut_message="So", thought_budget=9).decoding.settings.grammar


@pytest.mark.parametrize("chat", [True, False])
@pytest.mark.parametrize("typed", ["<think>", "</think>", "<|im_end|>", "a<|endoftext|>b"])
def test_a_typed_control_token_is_text(typed: str, chat: bool, served: Served, tiny_tokenizer: ThinkTokenizer) -> None:
    body = {"messages": [{"role": "user", "content": typed}]} if chat else {"prompt": typed}
    (request,) = read(served, chat, **body).requests
    assert not set(request.ids) & set(tiny_tokenizer.control_ids.values())
    assert typed in tiny_tokenizer.decode(request.ids)


def test_messages_are_rendered_as_in_training(served: Served, tiny_tokenizer: ThinkTokenizer) -> None:
    (plain,) = read(served).requests
    expected = tiny_tokenizer.encode_prompts([served.template.prompt("Hi")])[0]
    assert list(plain.ids) == expected
    parts = [{"role": "user", "content": [{"type": "text", "text": "H"}, {"type": "text", "text": "i"}]}]
    assert list(read(served, messages=parts).requests[0].ids) == expected
    answer = {"role": "assistant", "content": "b", "reasoning_content": "a", "reasoning": "a", "thoughts": ["a"]}
    turns = [{"role": "user", "content": "x"}, answer, *HI]
    said = tiny_tokenizer.decode(read(served, messages=turns).requests[0].ids)
    assert said.index("x") < said.index("b") < said.index("Hi")


def test_a_system_message_is_rendered_as_the_template_does_or_refused(served: Served) -> None:
    system = [{"role": "system", "content": "Be brief."}, *HI]
    said = served.tokenizer.decode(read(served, messages=system).requests[0].ids)
    assert said.index("Be brief.") < said.index("Hi")
    without = replace(served, template=replace(served.template, no_system="data.template has no place for it"))
    assert "data.template has no place for it" in str(refused(without, messages=system))


WRONG: list[tuple[str, dict[str, Any]]] = [
    ("messages", {"messages": "Hi"}), ("messages", {"messages": []}), ("messages", {"messages": ["Hi"]}),
    ("messages", {"messages": [{"role": "user", "content": 5}]}), ("messages", {"messages": [*HI, *HI]}),
    ("messages", {"messages": [{"role": "tool", "content": "x"}, *HI]}),
    ("messages", {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}),
    ("messages", {"messages": [{"role": "user", "content": " "}]}),
    ("messages", {"messages": [{"role": "user", "content": "\ud800"}]}),
    ("messages", {"messages": [*HI, {"role": "assistant", "content": "x"}]}),
    ("temperature", {"temperature": "hot"}), ("temperature", {"temperature": -1}),
    ("temperature", {"temperature": True}),
    ("temperature", {"temperature": 1e-9}), ("top_p", {"top_p": 0}), ("top_p", {"top_p": 1.5}),
    ("max_tokens", {"max_tokens": 0}), ("max_tokens", {"max_tokens": 1.5}), ("max_tokens", {"max_tokens": 10_000}),
    ("max_tokens", {"max_tokens": 4, "max_completion_tokens": 5}), ("stop", {"stop": 5}), ("stop", {"stop": [""]}),
    ("stop", {"stop": ["x"] * 17}), ("seed", {"seed": -1}), ("seed", {"seed": "x"}), ("n", {"n": 0}), ("n", {"n": 21}),
    ("stream", {"stream": "yes"}), ("stream_options", {"stream_options": {"x": 1}}),
    ("stream_options", {"stream_options": 1}),
    ("thinking_token_budget", {"thinking_token_budget": -1}),
    ("reasoning_effort", {"reasoning_effort": "hard"}),
    ("reasoning_effort", {"reasoning_effort": "low", "thinking_token_budget": 5}),
    ("min_thinking", {"min_thinking": 9, "thinking_token_budget": 5}),
    ("tools", {"tools": [{"type": "function"}]}), ("logprobs", {"logprobs": True}), ("top_k", {"top_k": 40}),
    ("presence_penalty", {"presence_penalty": 0.5}), ("response_format", {"response_format": {"type": "json_object"}}),
    ("temprature", {"temprature": 1}), ("chat_template_kwargs", {"chat_template_kwargs": {"tools": 1}}),
    ("cut_message", {"cut_message": "x" * 3_000, "thinking_token_budget": 5}), ("extend_text", {"extend_text": "a\0b"}),
    ("cut_message", {"cut_message": "\ud800", "thinking_token_budget": 5}), ("cut_message", {"cut_message": 5}),
    ("grammar", {"grammar": 1}), ("cut_message", {"cut_message": "</think>", "thinking_token_budget": 5}),
]  # fmt: skip


@pytest.mark.parametrize(("field", "body"), WRONG, ids=lambda value: str(value)[:60])
def test_a_wrong_value_is_refused_and_its_field_named(field: str, body: dict[str, Any], served: Served) -> None:
    error = refused(served, **body)
    assert error.param == field and str(error).startswith(f"{field}:")
    assert error.body()["error"]["type"] == "invalid_request_error"


def test_a_prompt_that_is_longer_than_the_context_is_refused_with_its_number(served: Served) -> None:
    error = refused(served, messages=[{"role": "user", "content": "word " * 2_000}])
    count = len(served.tokenizer.encode_prompts([served.template.prompt("word " * 2_000)])[0])
    assert f"the prompt has {count:,} tokens, and the context of 400 has no room" in str(error)
    assert error.code == "context_length_exceeded"
    with pytest.raises(ApiError, match="400 has no room"):
        read(served, chat=False, prompt="word " * 2_000)


def test_a_response_without_a_limit_ends_with_the_context(served: Served) -> None:
    prompt = served.tokenizer.decode(served.tokenizer.encode(["word " * 500])[0][:390])
    (request,) = read(served, chat=False, prompt=prompt).requests
    assert len(request.ids) + (request.limit or 0) == served.context


@pytest.mark.parametrize("body", [b"", b"[1]", b"{", b"\xff", b"[" * 100_000, b'{"a": NaN'])
def test_a_body_that_is_no_json_object_is_refused(body: bytes) -> None:
    with pytest.raises(ApiError, match="the body is not") as caught:
        Fields(body)
    assert caught.value.status == 400


@pytest.mark.parametrize("prompt", [None, 5, [], [5], ["a", 5], "", "\ud800"])
def test_a_prompt_of_completions_is_a_text(prompt: Any, served: Served) -> None:
    with pytest.raises(ApiError, match=r"^prompt:"):
        read(served, chat=False, prompt=prompt)
