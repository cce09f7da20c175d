"""The parser within the code with which vLLM answers a request (0.26 and later). test_on_vllm.py puts vLLM in reach."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamodules.tokens.tokenizer import ThinkTokenizer
from tests.lightning_modules.servers.test_think_blocks_parser import EVERY, PIECES, chunks, ids_of, written

PROMPT = [1, 2, 3]


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Any]:
    """What vLLM makes of --reasoning-parser-plugin and --reasoning-parser."""
    from vllm.parser.parser_manager import ParserManager
    from vllm.reasoning import ReasoningParserManager

    ReasoningParserManager.import_reasoning_parser(str(written(tmp_path, end=(2, 3))))
    yield ParserManager.get_parser(reasoning_parser_name="think_blocks", model_name="model")
    sys.modules.pop("think_blocks_parser", None)


@EVERY
@given(st.lists(PIECES, max_size=12), st.lists(st.integers(0, 200), max_size=12))
def test_a_reply_and_a_stream_have_the_same_texts(
    serving: Any, tiny_tokenizer: ThinkTokenizer, pieces: list[str], cuts: list[int]
) -> None:
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest

    request = ChatCompletionRequest(model="model", messages=[{"role": "user", "content": "x"}])
    text = tiny_tokenizer.decode(ids_of(pieces, tiny_tokenizer))
    whole = serving(tiny_tokenizer.full).parse(text, request)[:2]
    parser, found = serving(tiny_tokenizer.full), ["", ""]
    texts = chunks(text, cuts)
    for k, part in enumerate(texts):
        last = k == len(texts) - 1
        ids = [tiny_tokenizer.end_id] if last else []
        delta = parser.parse_delta(part, ids, request, prompt_token_ids=PROMPT, finished=last)
        if delta is not None:
            found[0] += delta.reasoning or ""
            found[1] += delta.content or ""
    assert (found[0] or None, found[1] or None) == whole
