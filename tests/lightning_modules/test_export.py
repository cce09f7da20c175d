import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard

from datamodules.tokens.template import load_template
from datamodules.tokens.tokenizer import ThinkTokenizer
from errors import UserError
from lightning_modules.checkpoints.content import Parent
from lightning_modules.export import OF_THIS_MACHINE, Card, _card, export_adapter, export_merged, merge
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
    assert settings["base_model_name_or_path"] == str(Path(tuner.name).resolve())
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
    with pytest.raises(UserError, match=r"--to: .*out' cannot be written: the disk is full"):
        export_merged(tuner, TEMPLATE, tmp_path / "out", CARD, torch.float32)
    assert not [path for path in tmp_path.iterdir() if "out" in path.name]


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
    full.chat_template = template.chat_template
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
    hub = Card("Qwen/Qwen2-0.5B", "abc", CARD.figures, CARD.checkpoint)
    for card, words in (
        (CARD, "\ntiny-qwen, trained"),
        (hub, "base_model: Qwen/Qwen2-0.5B\nbase_model_relation: finetune"),
    ):
        text = _card(card, "merged")
        assert words in text and ("base_model:" in text) == (card is hub)
        assert {"| right answers | 90.0 % |", "| easy | 100.0 % |"} <= set(text.splitlines()) and "`best.ckpt`" in text
        assert dict(vars(ModelCard(text).data))["pipeline_tag"] == "text-generation"


def test_the_model_card_names_the_weights_that_training_began_with() -> None:
    parents = [
        Parent("/home/me/runs/b/T2/checkpoints/best.ckpt", 9, ""),
        Parent("/home/me/runs/a/T1/adapter", None, ""),
    ]
    text = _card(replace(CARD, parents=parents), "merged")
    assert "with the weights of `b/T2/best.ckpt`, before that with those of `a/T1/adapter`." in text
    assert "/home/me" not in text and "did not begin" not in _card(CARD, "merged")


def test_an_exported_folder_is_the_same_everywhere(
    trained: Callable[..., ThinkTuner], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No path of this machine but the base's, which is absolute; files that the umask allows others to read."""
    tuner = trained("qwen2-tied")
    before, own = os.umask(0o022), tuner.tokenizer.full.chat_template
    try:
        export_merged(tuner, TEMPLATE, tmp_path / "merged", CARD, torch.float32)
        adapter = trained("qwen2")
        adapter.revision = "0123abc"
        export_adapter(adapter, TEMPLATE, tmp_path / "adapter", CARD)
    finally:
        os.umask(before)
    assert tuner.tokenizer.full.chat_template == own  # the tokenizer in memory stays the base's
    for folder in (tmp_path / "merged", tmp_path / "adapter"):
        for path in folder.iterdir():
            assert path.stat().st_mode & 0o777 == 0o644, path.name
        tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
        assert tokenizer["padding_side"] == "left" and not set(tokenizer) & set(OF_THIS_MACHINE)
        added = json.loads((folder / "tokenizer.json").read_text())["added_tokens"]
        assert all(not token["normalized"] for token in added if token["content"] in ("<think>", "</think>"))
        assert (folder / "generation_config.json").is_file()
    assert json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["revision"] == "0123abc"
    configs = [
        json.loads((tmp_path / "merged" / f"{name}.json").read_text()) for name in ("config", "generation_config")
    ]
    assert configs[0]["pad_token_id"] == configs[1]["pad_token_id"]
    monkeypatch.chdir(tmp_path / "merged")
    from peft import AutoPeftModelForCausalLM

    AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapter")


def test_transformers_opens_the_adapter_and_gives_the_logits_of_the_trained_model(
    trained: Callable[..., ThinkTuner], tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    tuner = trained("qwen2")
    assert tuner.net is not None
    ids = torch.tensor([[5, 300, *tuner.tokenizer.new_ids, 7]])
    before = logits(tuner.net.causal_lm, ids)
    export_adapter(tuner, TEMPLATE, tmp_path / "out", CARD)
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    torch.testing.assert_close(logits(again, ids), before, rtol=1e-5, atol=1e-5)


def test_a_padded_batch_gives_the_text_of_each_prompt_alone(trained: Callable[..., ThinkTuner], tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    export_merged(trained("qwen2"), TEMPLATE, tmp_path / "out", CARD, torch.float32)
    model, tokenizer = (of.from_pretrained(tmp_path / "out") for of in (AutoModelForCausalLM, AutoTokenizer))
    prompts = ["Solve x", "A much longer prompt: what is 17 + 25, and why?", "Hi"]

    def written(texts: list[str]) -> list[str]:
        given = tokenizer(texts, padding=True, return_tensors="pt")
        made = model.generate(**given, max_new_tokens=6, do_sample=False)
        texts_made: list[str] = tokenizer.batch_decode(made[:, given["input_ids"].shape[1] :])
        return texts_made

    assert written(prompts) == [written([prompt])[0] for prompt in prompts]


def test_a_merged_model_that_computes_something_else_is_not_exported(
    trained: Callable[..., ThinkTuner], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrongly(net: Any) -> Any:
        net.lm.unload()
        return net.causal_lm

    monkeypatch.setattr("lightning_modules.export.merge", wrongly)
    with pytest.raises(UserError, match="computes other logits than the trained model"):
        export_merged(trained("qwen2"), TEMPLATE, tmp_path / "out", CARD, torch.float32)
    assert not (tmp_path / "out").exists()


def test_a_small_difference_is_found_before_the_weights_are_rounded(
    trained: Callable[..., ThinkTuner], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slightly_wrong(net: Any) -> Any:
        model = merge(net)
        with torch.no_grad():
            model.get_output_embeddings().weight.mul_(1.001)
        return model

    monkeypatch.setattr("lightning_modules.export.merge", slightly_wrong)
    with pytest.raises(UserError, match="computes other logits than the trained model"):
        export_merged(trained("qwen2"), TEMPLATE, tmp_path / "out", CARD, torch.bfloat16)
    assert not (tmp_path / "out").exists()
