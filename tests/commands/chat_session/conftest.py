"""A chat with a model of random weights, whose terminal is a text."""

import io
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from commands.chat_session.speaker import Speaker
from commands.chat_session.state import Chat
from commands.chat_session.view import View
from datamodules.tokens.template import load_template
from datamodules.tokens.tokenizer import ThinkTokenizer
from lightning_modules.generation.decoding import Decoding, DecodingSettings
from lightning_modules.generation.engine import Engine
from lightning_modules.net.think_net import ThinkNet
from tests.conftest import random_lm

CONTEXT = 400
# A random model has thoughts and an answer with these
THINKS = DecodingSettings(max_new_tokens=30, grammar=True, thinking_budget=8, max_thoughts=2)
MakeChat = Callable[..., Chat]


def shown(chat: Chat) -> str:
    """Return what the terminal has shown since the last call."""
    file: Any = chat.view.console.file
    text = str(file.getvalue())
    file.seek(0)
    file.truncate()
    return text


@pytest.fixture
def make_chat(tiny_tokenizer: ThinkTokenizer) -> Iterator[MakeChat]:
    speakers: list[Speaker] = []

    def speaker(name: str, kind: str) -> Speaker:
        decoding = Decoding.of(tiny_tokenizer, None, replace(THINKS, max_new_tokens=CONTEXT))
        net = ThinkNet(random_lm(kind), tiny_tokenizer, None)
        template = load_template("instruction", None, tiny_tokenizer)
        speakers.append(Speaker(name, Engine(net, tiny_tokenizer, decoding, 1), tiny_tokenizer, template, None))
        return speakers[-1]

    def make(several: bool = False, terminal: bool = False) -> Chat:
        view = View(Console(file=io.StringIO(), force_terminal=terminal, highlight=False, width=80))
        tuned = speaker("tuned", "qwen2")
        return Chat(tuned, view, THINKS, lambda: speaker("base", "llama"), several)

    yield make
    for one in speakers:
        one.engine.close()
