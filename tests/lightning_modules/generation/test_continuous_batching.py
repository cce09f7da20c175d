import gc
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from datamodules.tokens.tokenizer import ThinkTokenizer
from lightning_modules.generation import continuous_batching, generate
from lightning_modules.generation.continuous_batching import write_all
from lightning_modules.generation.decoder import Decoder
from lightning_modules.generation.decoding import Decoding, DecodingSettings
from lightning_modules.generation.folded_weights import FoldedWeights
from lightning_modules.generation.token_choice import Request, TokenChoice, Written
from tests.lightning_modules.generation.conftest import ADAPTERS, MakeNet

LIMITS = [3, 12, 1, 7, 9, 2, 12, 5, 4, 8]
TEXTS = ["Solve x + 5 = 12", "What is 7 * 8?", "Hi", "Why?", "Solve x - 5 = 12 for x", "Tell", "A", "B c", "D", "E f g"]


def never() -> bool:
    return False


def quiet(ended: int, tokens: int) -> None:
    pass


def requests(tokenizer: ThinkTokenizer) -> list[Request]:
    return [Request(ids, k, limit) for k, (ids, limit) in enumerate(zip(tokenizer.encode(TEXTS), LIMITS, strict=True))]


def write(weights: FoldedWeights, asked: list[Request], rows: int, **how: Any) -> Iterator[tuple[int, Written]]:
    decoding = Decoding(DecodingSettings(max_new_tokens=12, temperature=how.pop("temperature", 0.0)), (640,), 600)
    choice = TokenChoice(decoding, rows, torch.device("cpu"))
    return write_all(weights, choice, asked, how.pop("cancelled", never), how.pop("progress", quiet))


@pytest.mark.parametrize("adapters", ADAPTERS)
@pytest.mark.parametrize("kind", ["qwen2", "llama-tied"])
def test_greedy_text_is_that_of_transformers(
    kind: str, adapters: str, make_net: MakeNet, tiny_tokenizer: ThinkTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = make_net(kind, adapters)
    decoding = Decoding.of(tiny_tokenizer, None, DecodingSettings(max_new_tokens=12))
    ours = dict(generate.generate(net, tiny_tokenizer, requests(tiny_tokenizer), decoding, rows=3))
    monkeypatch.setattr(generate, "not_foldable_reason", lambda net: "for this test")
    assert ours == dict(generate.generate(net, tiny_tokenizer, requests(tiny_tokenizer), decoding))
    assert len({one.text for one in ours.values()}) > 5


@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_the_number_of_rows_changes_nothing_that_is_written(
    temperature: float, make_net: MakeNet, tiny_tokenizer: ThinkTokenizer
) -> None:
    weights, asked = FoldedWeights(make_net(), 600), requests(tiny_tokenizer)
    alone = dict(write(weights, asked, 1, temperature=temperature))
    assert [len(alone[k].ids) for k in range(len(asked))] == LIMITS
    for rows in (2, 3, 10):
        assert dict(write(weights, asked, rows, temperature=temperature)) == alone


def test_a_row_that_ends_makes_room_and_no_step_is_spent_on_a_free_one(
    make_net: MakeNet, tiny_tokenizer: ThinkTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    step = Decoder.step

    def counted(self: Decoder, tokens: torch.Tensor) -> torch.Tensor:
        sizes.append(len(tokens))
        return step(self, tokens)

    monkeypatch.setattr(Decoder, "step", counted)
    list(write(FoldedWeights(make_net(), 600), requests(tiny_tokenizer), 3))
    assert sum(sizes) == sum(LIMITS) - len(LIMITS)  # a prompt's pass gives the first token
    assert len(sizes) <= 2 + -(-sum(sizes) // 3)


def test_prompts_are_added_in_passes_of_a_bounded_size(
    make_net: MakeNet, tiny_tokenizer: ThinkTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[list[int]] = []
    add = Decoder.add

    def counted(self: Decoder, prompts: Any) -> torch.Tensor:
        passes.append([len(prompt) for prompt in prompts])
        return add(self, prompts)

    monkeypatch.setattr(Decoder, "add", counted)
    monkeypatch.setattr(continuous_batching, "PROMPT_TOKENS", 12)
    asked = [Request([1] * length, limit=2) for length in (5, 30, 4, 4, 4, 1)]
    list(write(FoldedWeights(make_net(), 600), asked, 6))
    assert passes == [[30], [5, 4], [4, 4, 1]]


def test_a_generator_that_is_closed_leaves_nothing(make_net: MakeNet, tiny_tokenizer: ThinkTokenizer) -> None:
    net = make_net().train()
    decoding = Decoding.of(tiny_tokenizer, None, DecodingSettings(max_new_tokens=12))
    written = generate.generate(net, tiny_tokenizer, requests(tiny_tokenizer), decoding, rows=2)
    next(written)
    assert torch.is_grad_enabled() and not net.training, "between two responses the caller's gradient mode is its own"
    written.close()  # type: ignore[attr-defined]
    gc.collect()
    assert net.training
    assert not [one for one in gc.get_objects() if type(one) in (Decoder, FoldedWeights)]


def test_memory_does_not_grow_with_the_number_of_requests(make_net: MakeNet, tiny_tokenizer: ThinkTokenizer) -> None:
    weights, alive = FoldedWeights(make_net(), 600), []

    def count(ended: int, tokens: int) -> None:
        if ended in (5, 20, 40):
            gc.collect()
            alive.append(sum(one.nbytes for one in gc.get_objects() if type(one) is torch.Tensor))

    for _ in write(weights, requests(tiny_tokenizer) * 4, 2, progress=count):
        pass
    assert len(alive) > 2 and max(alive) < 1.01 * min(alive)
