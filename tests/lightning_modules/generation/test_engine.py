"""The engine: requests that arrive at any time are written together, and each as `generate` would write it."""

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from datamodules.tokens.tokenizer import ThinkTokenizer
from lightning_modules.generation import engine as engine_module
from lightning_modules.generation.decoder import Decoder
from lightning_modules.generation.decoding import Decoding, DecodingSettings
from lightning_modules.generation.engine import End, Engine, QueueFull, Stopping
from lightning_modules.generation.generate import generate
from lightning_modules.generation.token_choice import Request, Written
from tests.lightning_modules.generation.conftest import MakeNet

CONTEXT = 60
TEXTS = ["Solve x + 5 = 12", "What is 7 * 8?", "Hi", "Why?", "Tell me"]
Start = Callable[..., Engine]


class Listening:
    """Collects what the engine says of one request."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.ended: queue.Queue[End] = queue.Queue()

    def __call__(self, tokens: Sequence[int], end: End | None) -> None:
        self.tokens += tokens
        if end is not None:
            self.ended.put(end)

    def end(self) -> End:
        return self.ended.get(timeout=60)


@pytest.fixture
def start(make_net: MakeNet, tiny_tokenizer: ThinkTokenizer) -> Iterator[Start]:
    engines = []

    def start(**how: Any) -> Engine:
        decoding = Decoding.of(tiny_tokenizer, None, DecodingSettings(max_new_tokens=CONTEXT))
        engines.append(Engine(make_net(), tiny_tokenizer, decoding, **how))
        return engines[-1]

    yield start
    for one in engines:
        one.close()


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let a step take a while; return the number of rows of each."""
    sizes: list[int] = []
    step = Decoder.step

    def slowly(self: Decoder, tokens: torch.Tensor) -> torch.Tensor:
        sizes.append(len(tokens))
        time.sleep(0.02)
        return step(self, tokens)

    monkeypatch.setattr(Decoder, "step", slowly)
    return sizes


def asked(tokenizer: ThinkTokenizer) -> list[Request]:
    """Requests with different settings, seeds and limits."""
    plain = DecodingSettings(max_new_tokens=CONTEXT)
    own = [plain, replace(plain, temperature=1.2), replace(plain, grammar=True, thinking_budget=4), plain, plain]
    return [
        Request(ids, k, 8 + 3 * k, Decoding.of(tokenizer, None, settings))
        for k, (ids, settings) in enumerate(zip(tokenizer.encode(TEXTS), own, strict=True))
    ]


def by_generate(start: Start, tokenizer: ThinkTokenizer, request: Request) -> str:
    net = start().net
    assert request.decoding is not None
    plain = [request._replace(decoding=None)]
    ((_, response),) = generate(net, tokenizer, plain, request.decoding)
    return response.raw.replace("⟦", "").replace("⟧", "")


@pytest.mark.parametrize("folded", [True, False])
@pytest.mark.parametrize("rows", [1, 2, 5])
def test_each_response_is_that_of_generate(
    rows: int, folded: bool, start: Start, tiny_tokenizer: ThinkTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = asked(tiny_tokenizer)
    expected = [by_generate(start, tiny_tokenizer, one) for one in requests]
    if not folded:
        monkeypatch.setattr(engine_module, "not_foldable_reason", lambda net: "for this test")
    running = start(rows=rows)
    heard = []
    for k, one in enumerate(requests):
        heard.append(Listening())
        running.submit(one, heard[-1])
        if k % 2:
            time.sleep(0.03)  # later ones join those that are being written
    for text, listening in zip(expected, heard, strict=True):
        written = listening.end()
        assert isinstance(written, Written)
        assert listening.tokens == written.ids, "each token is handed on once, in order"
        assert tiny_tokenizer.decode(written.ids) == text
    assert running.load == (0, 0)


def test_requests_that_come_together_are_written_together(
    start: Start, slow: list[int], tiny_tokenizer: ThinkTokenizer
) -> None:
    running, heard = start(rows=5), [Listening() for _ in TEXTS]
    running.submit_all(asked(tiny_tokenizer), heard)
    for one in heard:
        one.end()
    assert max(slow) == 5 and len(slow) < 22


@pytest.mark.parametrize("folded", [True, False])
def test_a_cancelled_request_stops_and_leaves_its_row(
    folded: bool, start: Start, slow: list[int], tiny_tokenizer: ThinkTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not folded:
        monkeypatch.setattr(engine_module, "not_foldable_reason", lambda net: "for this test")
    running = start(rows=1)
    first, second = Listening(), Listening()
    endless = Decoding((running.decoding.settings), (10**6,), running.decoding.known_ids)
    job = running.submit(Request([5, 6], limit=CONTEXT - 2, decoding=endless), first)
    waiting = running.submit(Request([5, 6], limit=3), second)
    third = Listening()
    running.submit(Request([5, 6], limit=2), third)
    while len(first.tokens) < 3:
        time.sleep(0.001)
    job.cancel()
    waiting.cancel()
    third.end()
    assert len(first.tokens) < 12 and first.ended.empty()
    assert not second.tokens and second.ended.empty()
    assert running.load == (0, 0)


def test_a_full_queue_takes_all_or_none(start: Start, slow: list[int]) -> None:
    running, request = start(rows=1, queue=2), Request([5], limit=30)
    heard = [Listening() for _ in range(3)]
    running.submit_all([request] * 3, heard)
    late = Listening()
    with pytest.raises(QueueFull):
        running.submit_all([request] * 2, [late, late])
    for one in heard:
        assert isinstance(one.end(), Written)
    assert late.ended.empty() and not late.tokens


def test_after_close_all_responses_end_and_none_begins(start: Start, slow: list[int]) -> None:
    running, request = start(rows=1), Request([5], limit=50)
    heard = [Listening() for _ in range(3)]
    running.submit_all([request] * 3, heard)
    running.close()
    assert all(isinstance(one.end(), Stopping) for one in heard)
    with pytest.raises(Stopping):
        running.submit(request, Listening())
    assert threading.active_count() < 50


def test_a_step_that_fails_ends_its_responses_and_later_ones_are_written(
    start: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    running, request, step = start(rows=2), Request([5], limit=9), Decoder.step
    monkeypatch.setattr(Decoder, "step", lambda self, tokens: [][0])
    first = Listening()
    running.submit(request, first)
    assert isinstance(first.end(), IndexError)
    assert "a step of generation failed (IndexError" in caplog.text
    monkeypatch.setattr(Decoder, "step", step)
    second = Listening()
    running.submit(request, second)
    assert isinstance(second.end(), Written)
