import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from datamodules.tokens.template import load_template
from datamodules.tokens.tokenizer import ThinkTokenizer
from errors import UserError
from lightning_modules.export import Card, chat_template, export_adapter, export_merged
from lightning_modules.net.lora import LoraSettings
from lightning_modules.think_tuner import ThinkTuner
from tests.conftest import KINDS, TEMPLATE, TINY, random_lm

CARD = Card("assets/tiny-qwen", None, {"loss": 0.5, "answer_match": 0.9, "answer_match/easy": 1.0}, Path("best.ckpt"))


@pytest.fixture
def trained(tmp_path: Path, tiny_tokenizer: ThinkTokenizer) -> Callable[..., ThinkTuner]:
    """A tuner on a base of some kind, with random adapters and new-token embeddings."""

    def make(kind: str, lora: LoraSettings | None = None) -> ThinkTuner:
        base = tmp_path / f"base-{kind}"
        random_lm(kind).save_pretrained(base)
        for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
            os.link(TINY / name, base / name)
        tuner = ThinkTuner(name=str(base), lora=lora or LoraSettings(rank=4, target_modules="all-linear"))
        tuner.configure_model()
        torch.manual_seed(1)
        for parameter in tuner.trained().values():
            torch.nn.init.normal_(parameter, std=0.1)
        return tuner

    return make


def logits(model: Any, ids: torch.Tensor) -> torch.Tensor:
    model.eval()
    with torch.no_grad():
        result: torch.Tensor = model(input_ids=ids).logits
    return result


@pytest.mark.parametrize("kind", KINDS)
def test_the_merged_model_gives_the_logits_of_the_trained_one(
    kind: str, trained: Callable[..., ThinkTuner], tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tuner = trained(kind)
    assert tuner.net is not None
    ids = torch.tensor([[5, 300, *tuner.tokenizer.new_ids, 7, tuner.tokenizer.new_ids[0]]])
    before = logits(tuner.net.causal_lm, ids)
    export_merged(tuner, TEMPLATE, tmp_path / "out", CARD, torch.float32)
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    torch.testing.assert_close(logits(again, ids), before, rtol=1e-4, atol=1e-4)
    assert again.config.tie_word_embeddings == kind.endswith("tied")
    assert again.config.vocab_size == 640
    assert again.generation_config.suppress_tokens == list(range(len(tuner.tokenizer), 640))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Solve x"}], add_generation_prompt=True, return_dict=False
    )
    assert list(prompt) == tuner.tokenizer.encode_prompts([TEMPLATE.prompt("Solve x")])[0]


@pytest.mark.parametrize("kind", KINDS)
def test_peft_opens_the_adapter_and_gives_the_same_logits(
    kind: str, trained: Callable[..., ThinkTuner], tmp_path: Path
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    tuner = trained(kind, LoraSettings(rank=4))
    assert tuner.net is not None
    ids = torch.tensor([[5, 300, *tuner.tokenizer.new_ids, 7, tuner.tokenizer.new_ids[0]]])
    before = logits(tuner.net.causal_lm, ids)
    export_adapter(tuner, TEMPLATE, tmp_path / "out", CARD)
    settings = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == tuner.name
    base = AutoModelForCausalLM.from_pretrained(tuner.name)
    again = PeftModel.from_pretrained(base, str(tmp_path / "out"))
    torch.testing.assert_close(logits(again, ids), before, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(logits(again.merge_and_unload(), ids), before, rtol=1e-4, atol=1e-4)


def test_a_fully_trained_model_is_exported_and_has_no_adapter(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    tuner = ThinkTuner("assets/tiny-qwen", lora=None)
    tuner.configure_model()
    assert tuner.net is not None
    ids = torch.tensor([[5, 300, *tuner.tokenizer.new_ids]])
    before = logits(tuner.net.causal_lm, ids)
    with pytest.raises(UserError, match="without --adapter"):
        export_adapter(tuner, TEMPLATE, tmp_path / "adapter", CARD)
    export_merged(tuner, TEMPLATE, tmp_path / "out", CARD, torch.float32)
    torch.testing.assert_close(logits(AutoModelForCausalLM.from_pretrained(tmp_path / "out"), ids), before)


def test_an_interrupted_export_leaves_no_folder(
    trained: Callable[..., ThinkTuner], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuner = trained("qwen2")

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tuner.tokenizer.full, "save_pretrained", full, raising=False)
    with pytest.raises(OSError, match="No space"):
        export_merged(tuner, TEMPLATE, tmp_path / "out", CARD, torch.float32)
    assert not [path for path in tmp_path.iterdir() if "out" in path.name]


@pytest.mark.parametrize("setting", ["instruction", 'Q: "{{ instruction | trim }}" \\n\n\nA:', "{{ instruction }}"])
def test_the_chat_template_renders_prompts_and_turns(setting: str, tiny_tokenizer: ThinkTokenizer) -> None:
    from jinja2 import Environment

    template = load_template(setting, None, tiny_tokenizer)

    def render(*messages: dict[str, str]) -> str:
        def fail(message: str) -> None:
            raise ValueError(message)

        environment = Environment(trim_blocks=True, lstrip_blocks=True)
        jinja = environment.from_string(chat_template(template, None))
        return jinja.render(messages=messages, eos_token="<end>", raise_exception=fail)

    tricky = ' Say "{{ hi }}"\n\\n <think> '
    prompt = "".join(segment.text for segment in template.prompt(tricky))
    user = {"role": "user", "content": tricky}
    assert render(user) == prompt
    assert render(user, {"role": "assistant", "content": "7"}) == prompt + "7<end>"
    with pytest.raises(ValueError, match="without a system turn"):
        render({"role": "system", "content": "Be brief."}, user)


R1 = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'system' %}{{ m['content'] }}"
    "{% elif m['role'] == 'user' %}<|im_start|>{{ m['content'] | trim }}"
    "{% else %}{{ m['content'] }}{% endif %}{% endfor %}\n"
    "{% if add_generation_prompt %}{{ '<|im_end|><think>\\n' }}{% endif %}"
)


@pytest.mark.parametrize(
    "setting", ["instruction", "chat", "r1", "<|im_start|>Ask: {{ instruction }}<|im_end|>\nSay: "]
)
@pytest.mark.parametrize("system", [None, 'Be brief. Don\'t say "no".'])
def test_the_exported_tokenizer_gives_the_ids_of_training(setting: str, system: str | None, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    full = AutoTokenizer.from_pretrained(TINY)
    if setting == "r1":  # a template that opens the block itself, trims and needs a beginning-of-text token
        full.chat_template, full.bos_token, setting = R1, "<|endoftext|>", "chat"
    if system and setting != "chat":
        setting = "{{ system }}\n" + setting.replace("instruction", "{{ instruction }}", setting == "instruction")
    tokenizer = ThinkTokenizer(full)
    template = load_template(setting, system, tokenizer)
    full.chat_template = chat_template(template, full.chat_template)
    full.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    for instruction in ("Solve x + 5 = 12", "  two lines\n\nhere, é and 好。 "):
        ours = tokenizer.encode_prompts([template.prompt(instruction)])[0]
        theirs = again.apply_chat_template(
            [{"role": "user", "content": instruction}], add_generation_prompt=True, return_dict=False
        )
        assert list(theirs) == ours, again.decode(theirs)
        assert tokenizer.open_id not in ours


def test_the_model_card_has_base_and_figures(trained: Callable[..., ThinkTuner], tmp_path: Path) -> None:
    export_merged(trained("qwen2"), TEMPLATE, tmp_path / "out", CARD, torch.float32)
    card = (tmp_path / "out" / "README.md").read_text()
    for words in ("base_model: assets/tiny-qwen", "| right answers | 90.0 % |", "| easy | 100.0 % |", "`best.ckpt`"):
        assert words in card
