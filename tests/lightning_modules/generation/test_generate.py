from typing import Any

import pytest
import torch

from datamodules.tokens.tokenizer import ThinkTokenizer
from lightning_modules.generation.decoding import Decoding, DecodingSettings, generation_config
from lightning_modules.generation.generate import generate, in_order
from lightning_modules.generation.think_response import ThinkResponse
from lightning_modules.generation.token_choice import Request
from lightning_modules.net.lora import LoraSettings
from lightning_modules.net.think_net import ThinkNet
from tests.conftest import random_lm


@pytest.fixture
def net(tiny_tokenizer: ThinkTokenizer) -> ThinkNet:
    return ThinkNet(random_lm("qwen2"), tiny_tokenizer, LoraSettings())


def answer(
    net: ThinkNet, tokenizer: ThinkTokenizer, prompts: list[list[int]], seed: int = 1, rows: int = 64, **settings: Any
) -> list[ThinkResponse]:
    decoding = Decoding.of(tokenizer, None, DecodingSettings(**{"max_new_tokens": 12} | settings))
    requests = [Request(prompt, seed + k) for k, prompt in enumerate(prompts)]
    return list(in_order(generate(net, tokenizer, requests, decoding, rows=rows)))


@pytest.mark.parametrize("temperature", [0.0, 2.0])
def test_a_batch_gives_what_each_prompt_gives_alone(
    net: ThinkNet, tiny_tokenizer: ThinkTokenizer, temperature: float
) -> None:
    prompts = tiny_tokenizer.encode(["Solve x + 5 = 12", "What is 7 * 8?", "Hi", "Solve x + 5 = 12", "Why?"])
    one_by_one = answer(net, tiny_tokenizer, prompts, rows=1, temperature=temperature)
    for rows in (2, 5):
        assert answer(net, tiny_tokenizer, prompts, rows=rows, temperature=temperature) == one_by_one


STEERED: dict[str, Any] = {
    "grammar": True, "thinking_budget": 9, "thought_budget": 5, "max_thoughts": 3, "min_thinking": 3,
    "answer_reserve": 8, "cut_message": "!", "extend": 1, "extend_text": "Hm", "loop_tokens": 2, "loop_repeats": 2,
    "max_new_tokens": 30,
}  # fmt: skip


@pytest.mark.parametrize("temperature", [0.0, 2.0])
def test_steered_thinking_is_the_same_alone_and_beside_prompts_of_other_lengths(
    net: ThinkNet, tiny_tokenizer: ThinkTokenizer, temperature: float
) -> None:
    """Shorter prompts are padded on the left; the fourth ends within a thought."""
    prompts = tiny_tokenizer.encode(["Solve x + 5 = 12", "What is 7 * 8?", "Hi", "Solve x", "Why?"])
    prompts[3].append(tiny_tokenizer.open_id)
    steered = STEERED | {"temperature": temperature}
    one_by_one = answer(net, tiny_tokenizer, prompts, rows=1, **steered)
    assert answer(net, tiny_tokenizer, prompts, rows=5, **steered) == one_by_one
    for k, written in enumerate(one_by_one):
        assert written.balanced and written.thoughts and written.answer.strip()
        assert written.thinking_tokens <= 9 and written.masked is not None
        assert written.text.startswith("<think>") == (k != 3)


def test_ids_beyond_the_tokenizer_are_never_written(net: ThinkNet, tiny_tokenizer: ThinkTokenizer) -> None:
    """A padded vocabulary has untrained embeddings; here they would be the likeliest every time."""
    with torch.no_grad():
        net.causal_lm.get_output_embeddings().weight[len(tiny_tokenizer) :] *= 100
    prompts = tiny_tokenizer.encode(["Solve x + 5 = 12"] * 8)
    for temperature in (0.0, 5.0):
        for written in answer(net, tiny_tokenizer, prompts, temperature=temperature):
            assert max(tiny_tokenizer.encode([written.text])[0], default=0) < len(tiny_tokenizer)


def test_the_bases_own_generation_config_has_no_effect(net: ThinkNet, tiny_tokenizer: ThinkTokenizer) -> None:
    """transformers fills what a call leaves open from the model's own file: Qwen2's penalizes repetition."""
    from transformers import GenerationConfig

    prompts = tiny_tokenizer.encode(["Solve x + 5 = 12 x x x x", "What is 7 * 8?"])
    plain = answer(net, tiny_tokenizer, prompts)
    own = GenerationConfig(do_sample=True, repetition_penalty=50.0, no_repeat_ngram_size=1, top_k=3)
    net.causal_lm.generation_config = own
    assert answer(net, tiny_tokenizer, prompts) == plain
    assert net.causal_lm.generation_config is own


def test_of_the_bases_own_config_only_the_end_tokens_stay(tiny_tokenizer: ThinkTokenizer) -> None:
    from transformers import GenerationConfig

    base = GenerationConfig(do_sample=True, repetition_penalty=1.3, temperature=0.7, eos_token_id=[3, 4])
    config = generation_config(tiny_tokenizer, 640, base, DecodingSettings())
    assert config.eos_token_id == sorted({3, 4, tiny_tokenizer.end_id})
    assert (config.do_sample, config.repetition_penalty) == (False, None) or config.repetition_penalty == 1.0
    assert config.suppress_tokens == list(range(len(tiny_tokenizer), 640))
    assert generation_config(tiny_tokenizer, len(tiny_tokenizer), base, DecodingSettings()).suppress_tokens is None


def test_sampling_is_seeded_and_greedy_is_not_sampling(net: ThinkNet, tiny_tokenizer: ThinkTokenizer) -> None:
    prompts = tiny_tokenizer.encode(["Solve x + 5 = 12"] * 4)
    one = answer(net, tiny_tokenizer, prompts, seed=3, temperature=2.0, top_p=0.9)
    torch.rand(3)  # the global generator plays no part
    assert answer(net, tiny_tokenizer, prompts, seed=3, temperature=2.0, top_p=0.9) == one
    assert answer(net, tiny_tokenizer, prompts, seed=4, temperature=2.0, top_p=0.9) != one
    assert len({written.text for written in one}) > 1
    assert len({written.text for written in answer(net, tiny_tokenizer, prompts)}) == 1


def test_generating_leaves_training_as_it_was(net: ThinkNet, tiny_tokenizer: ThinkTokenizer) -> None:
    net.train()
    answer(net, tiny_tokenizer, tiny_tokenizer.encode(["Hi"]))
    assert net.training and all(module.training for module in net.modules())


def test_sampling_may_take_any_token_of_the_vocabulary(tiny_tokenizer: ThinkTokenizer) -> None:
    """transformers would take the 50 likeliest only."""
    config = generation_config(tiny_tokenizer, 640, None, DecodingSettings(temperature=1.0))
    assert (config.do_sample, config.top_k, config.top_p) == (True, 0, 1.0)


def test_a_cancelled_generation_stops_after_its_token(net: ThinkNet, tiny_tokenizer: ThinkTokenizer) -> None:
    prompts = tiny_tokenizer.encode(["Solve x + 5 = 12", "Hi"])
    asked: list[bool] = []

    def cancelled() -> bool:
        asked.append(len(asked) == 2)
        return asked[-1]

    decoding = Decoding.of(tiny_tokenizer, None, DecodingSettings(max_new_tokens=12))
    requests = [Request(prompt) for prompt in prompts]
    assert list(generate(net, tiny_tokenizer, requests, decoding, cancelled=cancelled)) == []
    assert len(asked) == 3


def test_a_request_may_have_a_lower_limit(net: ThinkNet, tiny_tokenizer: ThinkTokenizer) -> None:
    (prompt,) = tiny_tokenizer.encode(["Solve x + 5 = 12"])
    decoding = Decoding((DecodingSettings(max_new_tokens=12)), (640,), len(tiny_tokenizer))  # no id ends a response
    steps: list[tuple[int, int]] = []
    requests = [Request(prompt), Request(prompt, limit=5), Request(prompt, limit=99)]
    both = in_order(
        generate(net, tiny_tokenizer, requests, decoding, progress=lambda ended, tokens: steps.append((ended, tokens)))
    )
    lengths = [len(tiny_tokenizer.encode([one.text])[0]) for one in both]
    assert steps[-1] == (3, 12 + 5 + 12)
    assert lengths[1] <= 5 and not any(one.finished for one in both)
