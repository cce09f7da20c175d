"""The merged model: equal to the trained one, read again and compared, or not there at all."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from errors import UserError
from lightning_modules.export.adapter import export_adapter
from lightning_modules.export.merged import export_merged, merge
from lightning_modules.export.tokenizer_files import OF_THIS_MACHINE
from lightning_modules.think_tuner import ThinkTuner
from tests.conftest import KINDS, TEMPLATE
from tests.lightning_modules.export.conftest import CARD, logits


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

    monkeypatch.setattr("lightning_modules.export.merged.merge", wrongly)
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

    monkeypatch.setattr("lightning_modules.export.merged.merge", slightly_wrong)
    with pytest.raises(UserError, match="computes other logits than the trained model"):
        export_merged(trained("qwen2"), TEMPLATE, tmp_path / "out", CARD, torch.bfloat16)
    assert not (tmp_path / "out").exists()
