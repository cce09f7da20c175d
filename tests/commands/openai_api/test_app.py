"""A server on loopback, driven by the official client and by raw requests."""

import json
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from commands.openai_api.request import Served
from lightning_modules.generation.decoder import Decoder
from lightning_modules.generation.decoding import Decoding, DecodingSettings
from lightning_modules.generation.generate import generate
from lightning_modules.generation.think_response import ThinkResponse
from lightning_modules.generation.token_choice import Request
from tests.commands.openai_api.conftest import Server, Serving

openai = pytest.importorskip("openai")
httpx = pytest.importorskip("httpx")
QUESTIONS = ["Hi", "Solve x + 5 = 12", "What is 7 * 8?", "Why?", "<think>typed</think>"]


def client(server: Server) -> Any:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=60)


def ask(server: Server, question: str = "Hi", **more: Any) -> Any:
    messages = [{"role": "user", "content": question}]
    return client(server).chat.completions.create(model="tiny", messages=messages, **more)


def by_generate(server: Server, served: Served, question: str, **settings: Any) -> ThinkResponse:
    decoding = Decoding.of(served.tokenizer, None, DecodingSettings(**{"max_new_tokens": 20, **settings}))
    ids = served.tokenizer.encode_prompts([served.template.prompt(question)])[0]
    ((_, response),) = generate(server.net, served.tokenizer, [Request(ids)], decoding)
    return response


def wait_until(true: Callable[[], bool], seconds: float = 10) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until
        time.sleep(0.01)


# A random model has thoughts and an answer with these
GRAMMAR: dict[str, Any] = {"grammar": True, "thinking_budget": 8, "max_thoughts": 2}
THINKS = {"grammar": True, "thinking_token_budget": 8, "max_thoughts": 2}


def test_a_reply_is_what_generate_writes(serving: Serving, served: Served) -> None:
    with serving() as server:
        for question in QUESTIONS:
            response = by_generate(server, served, question, **GRAMMAR)
            reply = ask(server, question, temperature=0, extra_body=THINKS)
            (choice,) = reply.choices
            assert response.thoughts and response.answer.strip()
            assert choice.message.content == response.answer.strip()
            assert choice.message.thoughts == [one.strip() for one in response.thoughts]
            joined = "\n\n".join(one.strip() for one in response.thoughts)
            assert choice.message.reasoning_content == choice.message.reasoning == joined
            assert choice.finish_reason == ("stop" if response.finished else "length")
            assert choice.ended_by == response.ended_by
            assert reply.usage.completion_tokens == response.tokens
            assert reply.usage.completion_tokens_details.reasoning_tokens == response.thinking_tokens
            assert reply.usage.total_tokens == reply.usage.prompt_tokens + response.tokens
            prompt = served.tokenizer.encode_prompts([served.template.prompt(question)])[0]
            assert reply.usage.prompt_tokens == len(prompt)


@pytest.mark.parametrize("n", [1, 2])
def test_a_stream_joined_is_the_reply(n: int, serving: Serving) -> None:
    how: dict[str, Any] = {"n": n, "seed": 5, "temperature": 1.0, "extra_body": THINKS}
    with serving() as server:
        reply = ask(server, **how)
        stream = list(ask(server, stream=True, stream_options={"include_usage": True}, **how))
    assert stream[-1].usage == reply.usage and stream[-1].choices == []
    for choice in reply.choices:
        deltas = [one.choices[0] for one in stream[:-1] if one.choices[0].index == choice.index]
        texts = [one.delta.content or "" for one in deltas]
        thinking = [getattr(one.delta, "reasoning_content", None) or "" for one in deltas]
        assert "".join(texts) == choice.message.content
        assert "".join(thinking) == (choice.message.reasoning_content or "")
        parts = [part for one in deltas for part in getattr(one.delta, "thoughts", [])]
        for k, thought in enumerate(choice.message.thoughts):
            assert "".join(part["text"] for part in parts if part["index"] == k) == thought
        assert [one.finish_reason for one in deltas if one.finish_reason] == [choice.finish_reason]
    if n > 1:
        assert reply.choices[0].message.content != reply.choices[1].message.content, "each has its own seed"


def test_the_events_of_a_stream_end_with_done(serving: Serving) -> None:
    body = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}], "stream": True, "max_tokens": 3}
    with serving() as server:
        reply = httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=60)
    assert reply.headers["content-type"].startswith("text/event-stream")
    events = reply.text.split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    assert all(json.loads(one.removeprefix("data: "))["object"] == "chat.completion.chunk" for one in events[:-2])


def test_completions_take_a_text_as_it_is(serving: Serving, served: Served) -> None:
    with serving() as server:
        ids = served.tokenizer.encode(["Once upon"])[0]
        decoding = Decoding.of(served.tokenizer, None, DecodingSettings(max_new_tokens=20, **GRAMMAR))
        ((_, response),) = generate(server.net, served.tokenizer, [Request(ids)], decoding)
        how = {"model": "tiny", "prompt": ["Once upon", "Once upon"], "extra_body": THINKS}
        reply = client(server).completions.create(**how)
        stream = list(client(server).completions.create(stream=True, **how))
    assert [one.text for one in reply.choices] == [response.answer.strip()] * 2
    assert reply.usage.prompt_tokens == 2 * len(ids)
    assert "".join(one.choices[0].text for one in stream if one.choices[0].index == 1) == response.answer.strip()


def test_concurrent_clients_are_written_together_and_get_their_own(
    serving: Serving, served: Served, slow: list[int]
) -> None:
    budgets = [4, 2, 5, 8, 3]

    def one(k: int) -> Any:
        extra = {"grammar": True, "max_thoughts": 2, "thinking_token_budget": budgets[k]}
        if k % 2:
            return ask(server, QUESTIONS[k], extra_body=extra).choices[0].message.content
        stream = ask(server, QUESTIONS[k], stream=True, extra_body=extra)
        return "".join(chunk.choices[0].delta.content or "" for chunk in stream)

    with serving(rows=5) as server:
        how = {"grammar": True, "max_thoughts": 2}
        expected = [
            by_generate(server, served, question, thinking_budget=budget, **how).answer.strip()
            for question, budget in zip(QUESTIONS, budgets, strict=True)
        ]
        slow.clear()
        with ThreadPoolExecutor(5) as pool:
            assert list(pool.map(one, range(5))) == expected
    assert max(slow) > 1, "no two rows were in one step"


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_away_stops_its_generation(stream: bool, serving: Serving, slow: list[int]) -> None:
    body = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 350, "stream": stream}
    body |= {"min_thinking": 300}  # 350 steps of 20 ms: it ends by itself after 7 seconds
    with serving() as server:
        with httpx.Client(timeout=1.0) as http:
            if stream:
                with http.stream("POST", f"{server.url}/v1/chat/completions", json=body) as reply:
                    lines = reply.iter_lines()
                    next(lines)
                    wait_until(lambda: len(slow) > 3)
            else:
                with pytest.raises(httpx.ReadTimeout):
                    http.post(f"{server.url}/v1/chat/completions", json=body)
        wait_until(lambda: server.engine.load == (0, 0), 3)
        assert len(slow) < 250
        assert ask(server, max_tokens=2).usage.completion_tokens == 2, "the next one is answered"


def test_a_client_that_is_gone_at_once_leaves_no_generation(serving: Serving, slow: list[int]) -> None:
    body = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 350, "stream": True}
    text = json.dumps(body | {"min_thinking": 300})
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(text)}\r\n"
    with serving() as server:
        for _ in range(8):
            with socket.create_connection(("127.0.0.1", int(server.url.rsplit(":", 1)[1]))) as raw:
                raw.sendall(f"{head}Content-Type: application/json\r\n\r\n{text}".encode())
        time.sleep(0.3)
        wait_until(lambda: server.engine.load == (0, 0), 4)


def test_a_stop_text_ends_the_generation(serving: Serving, slow: list[int]) -> None:
    with serving() as server:
        whole = ask(server, max_tokens=60, extra_body={"thinking": False}).choices[0].message.content
        stop = whole[len(whole) // 2]
        before, count = whole.split(stop)[0].rstrip(), len(slow)
        reply = ask(server, max_tokens=300, stop=stop, extra_body={"thinking": False})
        assert (reply.choices[0].message.content, reply.choices[0].finish_reason) == (before, "stop")
        wait_until(lambda: server.engine.load == (0, 0))
        assert len(slow) - count < 150


def test_limits_have_their_status(serving: Serving, slow: list[int]) -> None:
    url, ok = "/v1/chat/completions", {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}]}
    with serving(rows=1, queue=0, max_body=2_000) as server, httpx.Client(base_url=server.url, timeout=60) as http:
        large = ok | {"messages": [{"role": "user", "content": "x" * 3_000}]}
        assert http.post(url, json=large).status_code == 413
        chunks = (part for part in [b'{"model": "', b"x" * 3_000, b'"}'])  # without a length in the header
        sent = http.post(url, content=chunks, headers={"content-type": "application/json"})
        assert sent.status_code == 413 and "2,000 bytes" in sent.json()["error"]["message"]
        assert http.post(url, content=json.dumps(ok), headers={"content-type": "text/plain"}).status_code == 415
        assert http.post(url, json=ok, headers={"host": "evil.example"}).status_code == 400
        for host in ("localhost", "127.0.0.1:80", "[::1]:8000"):
            assert http.get("/health", headers={"host": host}).status_code == 200
        assert http.get(url).status_code == 405 and http.get("/nothing").status_code == 404
        with pytest.raises(openai.BadRequestError, match="temperature") as wrong:
            ask(server, temperature=-1)
        assert wrong.value.body["param"] == "temperature"
        with pytest.raises(openai.NotFoundError, match=r"does not exist\. Give tiny"):
            client(server).chat.completions.create(model="other", messages=ok["messages"])
        stream = ask(server, stream=True, max_tokens=100, extra_body={"min_thinking": 90})
        next(iter(stream))
        with pytest.raises(openai.RateLimitError, match="0 requests wait already") as full:
            ask(server)
        assert full.value.response.headers["retry-after"] == "1"
        stream.close()
        wait_until(lambda: server.engine.load == (0, 0))
        server.engine.close()
        with pytest.raises(openai.InternalServerError, match="the server is stopping") as stopping:
            ask(server)
        assert stopping.value.status_code == 503


def test_a_failure_of_the_model_is_an_error_of_the_api(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving() as server:
        step = Decoder.step
        monkeypatch.setattr(Decoder, "step", lambda self, tokens: [][0])
        with pytest.raises(openai.InternalServerError, match="the model failed"):
            ask(server)
        with pytest.raises(openai.APIError, match="the model failed"):
            list(ask(server, stream=True))
        monkeypatch.setattr(Decoder, "step", step)
        assert ask(server, max_tokens=2).usage.completion_tokens == 2


def test_the_models_are_listed(serving: Serving) -> None:
    with serving() as server:
        assert [one.id for one in client(server).models.list()] == ["tiny"]
        assert client(server).models.retrieve("tiny").max_model_len == 400
        with pytest.raises(openai.NotFoundError):
            client(server).models.retrieve("other")
