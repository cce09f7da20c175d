"""A model of random weights that is served on loopback, in a thread of this process."""

import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest

from assets.browser import CHROMIUM, Tab, open_tab
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


@contextmanager
def listening(app: Any, close: Callable[[], None]) -> Iterator[str]:
    """Serve an application in a thread; give its address. `close` is called before the server ends."""
    import uvicorn

    taken = socket.socket()
    taken.bind(("127.0.0.1", 0))
    taken.listen()
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, args=([taken],), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"
    finally:
        close()
        server.should_exit = True
        thread.join(20)


@pytest.fixture
def serving(served: Served, tiny_tokenizer: ThinkTokenizer) -> Serving:
    """Return a context in which the model is served, under each of the names."""
    pytest.importorskip("uvicorn")
    from commands.openai_api.app import Model, make_app

    @contextmanager
    def serve(
        rows: int = 4, queue: int = 16, max_body: int = 10_000, names: Sequence[str] = ("tiny",)
    ) -> Iterator[Server]:
        net = ThinkNet(random_lm(), tiny_tokenizer, None).eval()
        decoding = Decoding.of(tiny_tokenizer, None, DecodingSettings(max_new_tokens=CONTEXT))
        engine = Engine(net, tiny_tokenizer, decoding, rows, queue)
        models = {name: Model(replace(served, name=name), engine) for name in names}
        with listening(make_app(models, max_body, loopback=True), engine.close) as url:
            yield Server(url, engine, net)

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


@pytest.fixture(scope="package")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    if CHROMIUM is None:
        pytest.skip("needs chromium to open the page in")
    with open_tab(tmp_path_factory.mktemp("profile")) as opened:
        yield opened
