"""A model of random weights that is served on loopback, in a thread of this process."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from commands.openai_api.request import EffortSettings, Served
from datamodules.tokens.template import load_template
from datamodules.tokens.tokenizer import ThinkTokenizer
from lightning_modules.generation.decoding import Decoding, DecodingSettings
from lightning_modules.generation.engine import Engine
from lightning_modules.net.think_net import ThinkNet
from tests.conftest import random_lm

CONTEXT = 400


@pytest.fixture
def served(tiny_tokenizer: ThinkTokenizer) -> Served:
    template = load_template("instruction", None, tiny_tokenizer)
    settings = DecodingSettings(max_new_tokens=20)
    return Served("tiny", tiny_tokenizer, template, None, settings, EffortSettings(), CONTEXT, 20)


@dataclass
class Server:
    """A server that runs, and its engine."""

    url: str
    engine: Engine
    net: ThinkNet


Serving = Callable[..., Any]


@pytest.fixture
def serving(served: Served, tiny_tokenizer: ThinkTokenizer) -> Serving:
    """Return a context in which the model is served."""
    pytest.importorskip("uvicorn")
    import uvicorn

    from commands.openai_api.app import Model, make_app

    @contextmanager
    def serve(rows: int = 4, queue: int = 16, max_body: int = 10_000) -> Iterator[Server]:
        net = ThinkNet(random_lm(), tiny_tokenizer, None).eval()
        decoding = Decoding.of(tiny_tokenizer, None, DecodingSettings(max_new_tokens=CONTEXT))
        engine = Engine(net, tiny_tokenizer, decoding, rows, queue)
        app = make_app({"tiny": Model(served, engine)}, max_body, loopback=True)
        listening = socket.socket()
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        try:
            yield Server(f"http://127.0.0.1:{listening.getsockname()[1]}", engine, net)
        finally:
            engine.close()
            server.should_exit = True
            thread.join(20)

    return serve


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let a step take a while; return the number of rows of each."""
    from lightning_modules.generation.decoder import Decoder

    sizes: list[int] = []
    step = Decoder.step

    def slowly(self: Decoder, tokens: Any) -> Any:
        sizes.append(len(tokens))
        time.sleep(0.02)
        return step(self, tokens)

    monkeypatch.setattr(Decoder, "step", slowly)
    return sizes
