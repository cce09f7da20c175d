from typing import Any

import pytest
import torch

from datamodules.tokens.tokenizer import ThinkTokenizer
from lightning_modules.generation.generate import SamplingSettings, generate, generation_config
from lightning_modules.net.lora import LoraSettings
from lightning_modules.net.think_net import ThinkNet
from tests.conftest import random_lm


@pytest.fixture
def net(tiny_tokenizer: ThinkTokenizer) -> ThinkNet:
    return ThinkNet(random_lm("qwen2"), tiny_tokenizer, LoraSettings())


def config_for(net: ThinkNet, tokenizer: ThinkTokenizer, **settings: Any) -> Any:
    return generation_config(tokenizer, net.vocabulary, None, SamplingSettings(**{"max_new_tokens": 12} | settings))


def test_a_batch_gives_what_each_prompt_gives_alone(net: ThinkNet, tiny_tokenizer: ThinkTokenizer) -> None:
    prompts = tiny_tokenizer.encode(["Solve x + 5 = 12", "What is 7 * 8?", "Hi"])
    config = config_for(net, tiny_tokenizer)
    together = generate(net, tiny_tokenizer, prompts, config)
    assert together == [generate(net, tiny_tokenizer, [prompt], config)[0] for prompt in prompts]


def test_ids_beyond_the_tokenizer_are_never_written(net: ThinkNet, tiny_tokenizer: ThinkTokenizer) -> None:
    """A padded vocabulary has untrained embeddings; here they would be the likeliest every time."""
    with torch.no_grad():
        net.causal_lm.get_output_embeddings().weight[len(tiny_tokenizer) :] *= 100
    prompts = tiny_tokenizer.encode(["Solve x + 5 = 12"] * 8)
    for settings in ({}, {"temperature": 5.0}):
        written = net.generate(
            input_ids=torch.tensor(prompts), attention_mask=torch.ones(8, len(prompts[0]), dtype=torch.int64),
            generation_config=config_for(net, tiny_tokenizer, **settings),
        )  # fmt: skip
        assert written.max() < len(tiny_tokenizer)


def test_of_the_bases_own_config_only_the_end_tokens_stay(tiny_tokenizer: ThinkTokenizer) -> None:
    from transformers import GenerationConfig

    base = GenerationConfig(do_sample=True, repetition_penalty=1.3, temperature=0.7, eos_token_id=[3, 4])
    config = generation_config(tiny_tokenizer, 640, base, SamplingSettings())
    assert config.eos_token_id == sorted({3, 4, tiny_tokenizer.end_id})
    assert (config.do_sample, config.repetition_penalty) == (False, None) or config.repetition_penalty == 1.0
    assert config.suppress_tokens == list(range(len(tiny_tokenizer), 640))
    assert generation_config(tiny_tokenizer, len(tiny_tokenizer), base, SamplingSettings()).suppress_tokens is None


def test_sampling_is_seeded_and_greedy_is_not_sampling(net: ThinkNet, tiny_tokenizer: ThinkTokenizer) -> None:
    prompts = tiny_tokenizer.encode(["Solve x + 5 = 12"] * 4)
    config = config_for(net, tiny_tokenizer, temperature=2.0, top_p=0.9)
    torch.manual_seed(3)
    one = generate(net, tiny_tokenizer, prompts, config)
    torch.manual_seed(3)
    assert generate(net, tiny_tokenizer, prompts, config) == one
    assert len({written.text for written in one}) > 1
    assert (
        len({written.text for written in generate(net, tiny_tokenizer, prompts, config_for(net, tiny_tokenizer))}) == 1
    )


def test_generating_leaves_training_as_it_was(net: ThinkNet, tiny_tokenizer: ThinkTokenizer) -> None:
    net.train()
    generate(net, tiny_tokenizer, tiny_tokenizer.encode(["Hi"]), config_for(net, tiny_tokenizer))
    assert net.training and all(module.training for module in net.modules())


def test_sampling_may_take_any_token_of_the_vocabulary(tiny_tokenizer: ThinkTokenizer) -> None:
    """transformers would take the 50 likeliest only."""
    config = generation_config(tiny_tokenizer, 640, None, SamplingSettings(temperature=1.0))
    assert (config.do_sample, config.top_k, config.top_p) == (True, 0, 1.0)


def test_a_cancelled_generation_stops_after_its_token(net: ThinkNet, tiny_tokenizer: ThinkTokenizer) -> None:
    prompts = tiny_tokenizer.encode(["Solve x + 5 = 12", "Hi"])
    asked: list[bool] = []

    def cancelled() -> bool:
        asked.append(len(asked) == 2)
        return asked[-1]

    written = generate(net, tiny_tokenizer, prompts, config_for(net, tiny_tokenizer), cancelled)
    assert len(asked) == 3
    assert all(len(tiny_tokenizer.encode([one.text])[0]) <= 12 and not one.finished for one in written)
