import pytest
import torch

from datamodules.tokens.tokenizer import ThinkTokenizer
from lightning_modules.generation import generate, memory
from lightning_modules.generation.decoding import Decoding, DecodingSettings
from lightning_modules.generation.folded_weights import FoldedWeights
from lightning_modules.generation.kv_cache import KVCache
from lightning_modules.generation.memory import free_bytes, longest_of, row_count, token_bytes
from lightning_modules.generation.token_choice import Request
from tests.lightning_modules.generation.conftest import MakeNet


def test_the_bytes_of_a_token_are_those_of_the_cache(make_net: MakeNet, tiny_tokenizer: ThinkTokenizer) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        net = make_net(dtype=dtype)
        assert KVCache(FoldedWeights(net, len(tiny_tokenizer)), 3, 10).content.nbytes == 30 * token_bytes(net)


def test_long_responses_are_written_a_few_at_once(make_net: MakeNet, monkeypatch: pytest.MonkeyPatch) -> None:
    net, requests = make_net(), [Request([1] * 10, limit=limit) for limit in (5, 500, 90)] * 30
    assert longest_of(requests, 200) == 210
    assert row_count(net, requests[:7], 200) == 7
    assert row_count(net, requests, 200) == memory.ROWS
    monkeypatch.setattr(memory, "SMALLEST_CACHE", 0)
    monkeypatch.setattr(memory, "CACHE", 0.5)
    weights = sum(parameter.nbytes for parameter in net.causal_lm.parameters())
    rows = row_count(net, requests, 200)
    assert rows * 210 * token_bytes(net) <= weights / 2 < (rows + 1) * 210 * token_bytes(net)
    assert row_count(net, requests, 10**9) == 1


def test_without_room_for_copies_transformers_generates_and_says_so_once(
    make_net: MakeNet,
    tiny_tokenizer: ThinkTokenizer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    net = make_net()
    free = free_bytes(torch.device("cpu"))
    assert free is None or free > 2**20
    decoding = Decoding.of(tiny_tokenizer, None, DecodingSettings(max_new_tokens=3))
    asked = [Request([1, 2, 3])]
    (plenty,) = generate.generate(net, tiny_tokenizer, asked, decoding)
    monkeypatch.setattr(memory, "free_bytes", lambda device: 10_000)
    monkeypatch.setattr(generate, "FoldedWeights", None)
    with caplog.at_level("INFO"):
        for _ in range(2):
            assert list(generate.generate(net, tiny_tokenizer, asked, decoding)) == [plenty]
    (line,) = [record.message for record in caplog.records if "transformers' generate is used" in record.message]
    assert "0.0 GB are free" in line
