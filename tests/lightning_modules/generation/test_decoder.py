"""Logits with folded weights and a cache, against transformers' forward pass of the whole text."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules.tokens.tokenizer import ThinkTokenizer
from lightning_modules.generation.decoder import Decoder
from lightning_modules.generation.folded_weights import FoldedWeights
from lightning_modules.net.think_net import ThinkNet
from tests.lightning_modules.generation.conftest import ADAPTERS, MakeNet

ROWS = 4
WINDOW = {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1}
NETS = [
    *(("qwen2", name, {}) for name in ADAPTERS),
    ("qwen2-tied", "attention", {}),
    ("qwen2-tied", "none", {}),
    ("qwen2", "attention", {"num_key_value_heads": 4}),
    ("qwen2", "attention", {"num_key_value_heads": 1}),
    ("qwen2", "attention", WINDOW),
    ("llama", "patterns", {}),
    ("llama-tied", "pissa", {"num_key_value_heads": 1}),
    ("llama", "rslora", {"attention_bias": True, "mlp_bias": True}),
    ("llama", "none", {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 10_000.0}}),
]


@torch.no_grad()
def expected(net: ThinkNet, texts: list[list[int]], known: int) -> torch.Tensor:
    logits: list[torch.Tensor] = [net.causal_lm(torch.tensor([ids]), use_cache=False).logits[0, -1] for ids in texts]
    return torch.stack(logits)[:, :known]


@pytest.mark.parametrize(("kind", "adapters", "config"), NETS, ids=str)
def test_logits_equal_transformers_at_each_step_however_rows_come_and_go(
    kind: str, adapters: str, config: dict[str, Any], make_net: MakeNet, tiny_tokenizer: ThinkTokenizer
) -> None:
    net, known = make_net(kind, adapters, **config), len(tiny_tokenizer)
    weights = FoldedWeights(net, known)
    ids = st.lists(st.integers(0, known - 1), min_size=1, max_size=12)
    action = st.one_of(
        st.tuples(st.just("add"), st.lists(ids, min_size=1, max_size=3)),
        st.tuples(st.just("step"), st.lists(st.integers(0, known - 1), min_size=ROWS, max_size=ROWS)),
        st.tuples(st.just("remove"), st.sets(st.integers(0, ROWS - 1))),
    )

    @settings(max_examples=15, deadline=None)
    @given(st.lists(action, min_size=1, max_size=14))
    def check(actions: list[tuple[str, Any]]) -> None:
        decoder = Decoder(weights, ROWS, 12 + len(actions))
        texts: list[list[int]] = []
        for name, given_ids in [("add", [tiny_tokenizer.new_ids]), *actions]:
            if name == "add" and (prompts := given_ids[: ROWS - len(texts)]):
                texts += prompts
                logits, compared = decoder.add(prompts), prompts
            elif name == "step" and texts:
                compared = texts = [[*text, token] for text, token in zip(texts, given_ids, strict=False)]
                logits = decoder.step(torch.tensor(given_ids[: len(texts)]))
            elif name == "remove":
                texts = [texts[k] for k in decoder.remove([k for k in given_ids if k < len(texts)])]
                continue
            else:
                continue
            torch.testing.assert_close(logits, expected(net, compared, known), rtol=1e-5, atol=1e-5)

    check()


def test_half_precision_is_as_close_to_float32_as_transformers_is(
    make_net: MakeNet, tiny_tokenizer: ThinkTokenizer
) -> None:
    net, known = make_net("qwen2", "patterns"), len(tiny_tokenizer)
    texts = tiny_tokenizer.encode(["Solve x + 5 = 12", "What is 7 * 8?", "Hi"])
    exact = expected(net, texts, known)
    net = make_net("qwen2", "patterns", torch.bfloat16)
    decoder = Decoder(FoldedWeights(net, known), 3, 40)
    decoder.add([text[:-1] for text in texts])
    own = decoder.step(torch.tensor([text[-1] for text in texts]))
    assert own.dtype == torch.bfloat16
    theirs = expected(net, texts, known)
    assert (own - exact).norm() < 1.5 * (theirs - exact).norm() < 0.15 * exact.norm()


def test_autocasts_dtype_is_that_of_the_products(make_net: MakeNet, tiny_tokenizer: ThinkTokenizer) -> None:
    net, known = make_net("qwen2", "none"), len(tiny_tokenizer)
    text = tiny_tokenizer.encode(["Solve x + 5 = 12"])
    with torch.autocast("cpu", torch.bfloat16):
        weights = FoldedWeights(net, known)
        own = Decoder(weights, 1, 40).add(text)
    assert weights.dtype == own.dtype == torch.bfloat16
    torch.testing.assert_close(own.float(), expected(net, text, known), rtol=0.05, atol=0.05)


def test_a_row_keeps_no_trace_of_the_one_before_it(make_net: MakeNet, tiny_tokenizer: ThinkTokenizer) -> None:
    weights = FoldedWeights(make_net(), len(tiny_tokenizer))
    long, short = tiny_tokenizer.encode(["Solve x + 5 = 12 for x, then write it", "Hi"])
    fresh, used = (Decoder(weights, 2, 60) for _ in range(2))
    used.add([long, long])
    used.remove([0, 1])
    for decoder in (fresh, used):
        decoder.add([long, short])
    assert torch.equal(fresh.step(torch.tensor([5, 6])), used.step(torch.tensor([5, 6])))
