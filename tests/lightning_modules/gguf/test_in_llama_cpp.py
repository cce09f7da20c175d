"""A real llama.cpp computes what the run computes: ids of texts and prompts, probabilities, and greedy texts."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from commands.probes import QUESTIONS, probes
from datamodules.tokens.template import load_template
from lightning_modules.generation.decoding import Decoding, DecodingSettings
from lightning_modules.generation.generate import generate, in_order
from lightning_modules.generation.token_choice import Request
from lightning_modules.gguf.gguf_export import export_gguf
from lightning_modules.gguf.pre_tokenizer import KNOWN, TEXTS, Known, pre_tokenizer
from lightning_modules.gguf.read_back import read_model
from lightning_modules.think_tuner import ThinkTuner
from tests.conftest import TEMPLATE, TINY, random_lm
from tests.lightning_modules.export.conftest import CARD
from tests.lightning_modules.gguf.test_layers import LLAMA3
from tests.stand_ins.llama_server import REASON, THERE, serving

pytestmark = [pytest.mark.skipif(not THERE, reason=REASON), pytest.mark.slow]
LINEAR = {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}
BASES: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen2": ("qwen2", {}),
    "qwen2, tied": ("qwen2-tied", {"rms_norm_eps": 1e-3, "rope_parameters": {"rope_theta": 1e6}}),
    "qwen2, linear": ("qwen2", {"rope_parameters": LINEAR}),
    "llama": ("llama", {}),
    "llama, wide heads": ("llama-tied", {"head_dim": 16}),
    "llama, linear": ("llama", {"rope_parameters": LINEAR}),
    "llama, llama3": ("llama", {"rope_parameters": LLAMA3}),
}


def tuner_on(folder: Path, model: Any) -> ThinkTuner:
    """An untrained tuner on a base with the embedded tokenizer."""
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        if not (folder / name).exists():
            os.link(TINY / name, folder / name)
    tuner = ThinkTuner(str(folder))
    tuner.configure_model()
    return tuner


@pytest.mark.parametrize("of", ["F16", "Q8_0"])
@pytest.mark.parametrize("base", BASES)
def test_llama_cpp_gives_the_probabilities_of_the_model_with_the_same_weights(
    base: str, of: Any, tmp_path: Path
) -> None:
    kind, settings = BASES[base]
    model = random_lm(kind, **settings)
    with torch.no_grad():  # the random weights of the other tests attend to all tokens alike, wherever they are
        for layer in model.model.layers:
            layer.self_attn.q_proj.weight.mul_(8)
            layer.self_attn.k_proj.weight.mul_(8)
    rope = model.model.rotary_emb
    file = export_gguf(tuner_on(tmp_path / "base", model), TEMPLATE, tmp_path / "out", CARD, of)
    ids = [(7 * k) % 500 for k in range(60)]
    again = read_model(file)
    again.model.rotary_emb = rope  # transformers reads no scaling of positions from a file
    with torch.no_grad():
        wanted = again(input_ids=torch.tensor([ids])).logits[0, -1].log_softmax(-1)
    with serving(file) as server:
        reply = server.ask("/completion", prompt=ids, n_predict=1, temperature=0, n_probs=50)
    told = reply["completion_probabilities"][0]["top_logprobs"]
    assert len(told) == 50
    wrong = max(abs(one["logprob"] - float(wanted[one["id"]])) for one in told)
    assert wrong < 0.1  # llama.cpp rounds activations and its cache; a wrong order or frequency gives 0.4 and more


def tokenizer_like(known: Known, folder: Path) -> None:
    """A tokenizer whose merges cross all borders, so that its ids show where a text was split."""
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=600, min_frequency=1, show_progress=False, initial_alphabet=alphabet)
    learner.train_from_iterator([text for text in TEXTS if "<think>" not in text for _ in range(2)], trainer)
    frame = json.loads((TINY / "tokenizer.json").read_text())
    frame["model"] = json.loads(learner.to_str())["model"] | {"ignore_merges": known.ignore_merges}
    empty = Tokenizer(models.BPE())
    empty.pre_tokenizer = pre_tokenizer(known)
    frame["pre_tokenizer"] = json.loads(empty.to_str())["pre_tokenizer"]
    for k, token in enumerate(frame["added_tokens"]):
        token["id"] = 600 + k
    folder.mkdir()
    (folder / "tokenizer.json").write_text(json.dumps(frame))
    config = json.loads((TINY / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"tokenizer_class": "PreTrainedTokenizerFast"}))


@pytest.mark.parametrize("known", KNOWN, ids=lambda known: known.name)
def test_llama_cpp_splits_texts_like_the_known_pre_tokenizer(known: Known, tmp_path: Path) -> None:
    tokenizer_like(known, tmp_path / "base")
    tuner = tuner_on(tmp_path / "base", random_lm("llama", 640))
    full = tuner.tokenizer.full
    file = export_gguf(tuner, TEMPLATE, tmp_path / "out", CARD, "F16")
    with serving(file) as server:
        for text in TEXTS:
            assert server.ids(text) == full(text, add_special_tokens=False).input_ids, text


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Any], tuple[Path, ThinkTuner, Any]]:
    """The embedded model, which answers equations, as a file of a type; with a tuner that has a net."""

    def make(of: Any) -> tuple[Path, ThinkTuner, Any]:
        tuners = [ThinkTuner(str(TINY)) for _ in range(2)]
        for tuner in tuners:
            tuner.configure_model()
        template = load_template("instruction", None, tuners[0].tokenizer)
        folder = tmp_path_factory.mktemp("embedded") / "out"
        return export_gguf(tuners[0], template, folder, replace(CARD, name="demo"), of), tuners[1], template

    return make


@pytest.mark.parametrize("of", ["F16", "Q8_0"])
def test_prompts_have_the_ids_of_the_run_and_greedy_texts_are_those_of_generate(of: Any, embedded: Any) -> None:
    file, tuner, template = embedded(of)
    equations = [f"Solve {a}x + {b} = {a * 3 + b}" for a, b in ((2, 5), (3, 4), (5, 1), (7, 2), (4, 9), (6, 6))]
    asked = probes(template, tuner.tokenizer)
    prompts = [list(one.ids) for one in asked]
    tokenizer = tuner.tokenizer
    decoding = Decoding.of(tokenizer, tuner.generation_config, DecodingSettings(max_new_tokens=40))
    with serving(file) as server:
        for one in asked:
            messages = [dict(message) for message in one.messages]
            assert server.ids(server.prompt(messages)) == list(one.ids), messages
        prompts += [server.ids(server.prompt([{"role": "user", "content": text}])) for text in equations[:4]]
        assert len(prompts) == 10 and len(QUESTIONS) == 4
        requests = [Request(prompt, 0) for prompt in prompts]
        ours = [list(one.ids) for one in in_order(generate(tuner.net, tokenizer, requests, decoding))]
        theirs = [server.greedy(prompt, 40) for prompt in prompts]
    texts = [[tokenizer.decode(ids).removesuffix("<|im_end|>") for ids in written] for written in (ours, theirs)]
    same = sum(a == b for a, b in zip(*texts, strict=True))
    assert same == 10, [pair for pair in zip(*texts, strict=True) if pair[0] != pair[1]]


def test_ids_without_a_token_are_never_written(tmp_path: Path) -> None:
    """They are padding of the embedding, untrained, and may have the largest logit."""
    model = random_lm("qwen2")
    with torch.no_grad():
        model.lm_head.weight[600:] = model.lm_head.weight[600:] * 50
    file = export_gguf(tuner_on(tmp_path / "base", model), TEMPLATE, tmp_path / "out", CARD, "F16")
    with serving(file) as server:
        assert max(i for prompt in ([5, 6], [9], [300, 2]) for i in server.greedy(prompt, 8)) < 600
