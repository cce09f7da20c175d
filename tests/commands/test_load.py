"""A model gives the same logits after saving and loading, after merging, and after export."""

import os
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from commands.export import run as export
from commands.load import load_run
from errors import UserError
from lightning_modules.checkpoints.checkpoint_file import CheckedCheckpointIO
from lightning_modules.net.lora import LoraSettings
from lightning_modules.think_tuner import ThinkTuner
from tests.conftest import TINY, needs_bitsandbytes, random_lm

VARIANTS: dict[str, LoraSettings | None] = {
    "full": None,
    "plain": LoraSettings(rank=4),
    "dora": LoraSettings(rank=4, target_modules="all-linear", peft={"use_dora": True}),
    # Its initial adapters are random, so that other ones would show
    "pissa": LoraSettings(rank=4, target_modules="all-linear", peft={"init_lora_weights": "pissa_niter_2"}),
}
PATTERNS = {"rank_pattern": {"q_proj": 6, r"layers\.1\..*k_proj": 2}, "alpha_pattern": {"o_proj": 3.5}}
RARER: dict[str, LoraSettings | None] = {
    "use_rslora with patterns": LoraSettings(rank=4, use_rslora=True, peft=dict(PATTERNS)),
    "pissa, use_rslora and patterns": LoraSettings(
        rank=4, use_rslora=True, peft={"init_lora_weights": "pissa", **PATTERNS}
    ),
    "olora with patterns": LoraSettings(rank=4, peft={"init_lora_weights": "olora", **PATTERNS}),
    "pissa and dora": LoraSettings(rank=4, peft={"init_lora_weights": "pissa", "use_dora": True}),
    "bias": LoraSettings(rank=4, target_modules=["q_proj"], peft={"lora_bias": True}),
    "one layer": LoraSettings(
        rank=4, peft={"layers_to_transform": [1], "layers_pattern": "layers", "exclude_modules": ["k_proj"]}
    ),
    "parameters": LoraSettings(rank=4, peft={"target_parameters": ["mlp.gate_proj.weight"]}),
}
# Vocabulary sizes: more than the 547 ids; without room for the two tags; the latter after resizing
ROOM, NONE, GROWN = 640, 545, 576

Saved = tuple[Path, torch.Tensor]  # a run folder, and the logits of the model when it was saved
IDS = torch.tensor([[5, 300, 545, 7, 12, 546, 9, 545]])


def logits(model: Any) -> torch.Tensor:
    model.eval()
    with torch.no_grad():
        result: torch.Tensor = model(input_ids=IDS).logits
    return result


@pytest.fixture
def saved(tmp_path: Path, make_batch: Callable[..., Any]) -> Callable[..., Saved]:
    """Train a model for a few steps and write a run folder, as `fit` does."""

    def make(kind: str, lora: LoraSettings | None, vocabulary: int = ROOM, **more: Any) -> Saved:
        base = tmp_path / "base"
        random_lm(kind, vocabulary).save_pretrained(base)
        for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
            os.link(TINY / name, base / name)
        torch.manual_seed(1)
        tuner = ThinkTuner(name=str(base), lora=lora, **more)
        tuner.configure_model()
        assert tuner.net is not None
        optimizer = torch.optim.AdamW(tuner.trained().values(), lr=0.02)
        losses = []
        for _ in range(8):
            optimizer.zero_grad()
            total = tuner.net(make_batch(0, 3, 9)).total
            total.backward()
            optimizer.step()
            losses.append(total.item())
        assert losses[-1] < losses[0]
        content: dict[str, Any] = {"state_dict": tuner.state_dict()}
        tuner.on_save_checkpoint(content)
        run = tmp_path / "run"
        CheckedCheckpointIO().save_checkpoint(content, run / "checkpoints" / "best.ckpt")
        model = {"name": str(base), "dtype": "float32", "lora": asdict(lora) if lora else None, **more}
        (run / "config.yaml").write_text(yaml.safe_dump({"model": model, "data": {"source": "builtin"}, "trainer": {}}))
        return run, logits(tuner.net.causal_lm)

    return make


@pytest.mark.parametrize("vocabulary", [ROOM, NONE], ids=["room", "no room"])
@pytest.mark.parametrize("kind", ["qwen2", "qwen2-tied"])
@pytest.mark.parametrize("lora", VARIANTS.values(), ids=VARIANTS)
def test_the_loaded_and_the_merged_model_give_the_same_logits(
    lora: LoraSettings | None, kind: str, vocabulary: int, saved: Callable[..., Saved], tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    run, said = saved(kind, lora, vocabulary)
    torch.manual_seed(2)
    net = load_run(str(run), None, "runs").tuner.net
    assert net is not None
    torch.testing.assert_close(logits(net.causal_lm), said, rtol=0, atol=0)
    assert export(["--run", str(run), "--to", str(tmp_path / "merged")]) == 0
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(logits(merged), said, rtol=1e-4, atol=1e-4)
    assert (merged.get_output_embeddings().weight is merged.get_input_embeddings().weight) == kind.endswith("tied")
    rows = ROOM if vocabulary == ROOM else GROWN
    assert merged.config.vocab_size == merged.get_input_embeddings().num_embeddings == rows


ADAPTERS = {**{name: lora for name, lora in VARIANTS.items() if lora}, **RARER}


@pytest.mark.parametrize("lora", ADAPTERS.values(), ids=ADAPTERS)
def test_the_exported_adapter_on_its_base_gives_the_same_logits(
    lora: LoraSettings, saved: Callable[..., Saved], tmp_path: Path
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    run, said = saved("qwen2", lora)
    assert export(["--run", str(run), "--to", str(tmp_path / "adapter"), "--adapter"]) == 0
    again = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tmp_path / "base"), tmp_path / "adapter")
    torch.testing.assert_close(logits(again), said, rtol=1e-5, atol=1e-5)
    assert export(["--run", str(run), "--to", str(tmp_path / "merged")]) == 0
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(logits(merged), said, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["qwen2", "qwen2-tied"])
def test_the_card_of_an_adapter_says_how_to_resize_a_base_that_is_too_small(
    kind: str, saved: Callable[..., Saved], tmp_path: Path
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    run, said = saved(kind, VARIANTS["plain"], NONE)
    assert export(["--run", str(run), "--to", str(tmp_path / "adapter"), "--adapter"]) == 0
    assert "base.resize_token_embeddings(576, mean_resizing=False)" in (tmp_path / "adapter/README.md").read_text()
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    base.resize_token_embeddings(576, mean_resizing=False)
    again = logits(PeftModel.from_pretrained(base, tmp_path / "adapter"))
    torch.testing.assert_close(again[..., :547], said[..., :547], rtol=1e-5, atol=1e-5)


@needs_bitsandbytes
def test_adapters_of_a_4_bit_base_are_merged_into_the_full_base(
    saved: Callable[..., Saved], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also without bitsandbytes. The export gives the logits of the adapters on the full base."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    run, said = saved("qwen2", VARIANTS["dora"], quantize="nf4")
    four_bit = load_run(str(run), None, "runs").tuner.net
    assert four_bit is not None
    torch.testing.assert_close(logits(four_bit.causal_lm), said, rtol=0, atol=0)
    monkeypatch.setattr("lightning_modules.net.quantize.find_spec", lambda _: None)
    whole = load_run(str(run), None, "runs", quantize=None).tuner.net
    assert whole is not None
    wanted = logits(whole.causal_lm)
    assert 0 < (wanted - said).abs().mean() < 0.2 * said.abs().mean()
    assert export(["--run", str(run), "--to", str(tmp_path / "merged")]) == 0
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(logits(merged), wanted, rtol=1e-4, atol=1e-4)
    assert export(["--run", str(run), "--to", str(tmp_path / "adapter"), "--adapter"]) == 0
    again = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tmp_path / "base"), tmp_path / "adapter")
    torch.testing.assert_close(logits(again), wanted, rtol=1e-5, atol=1e-5)
    for folder in ("merged", "adapter"):
        assert "against the base in 4 bits a weight (nf4)" in (tmp_path / folder / "README.md").read_text()
    with pytest.raises(UserError, match=r"model\.quantize: 'nf4' needs a package.*pip install -c"):
        load_run(str(run), None, "runs")


def test_a_half_precision_base_gives_the_same_logits_after_loading(saved: Callable[..., Saved]) -> None:
    run, said = saved("qwen2", VARIANTS["pissa"], dtype="bfloat16")
    net = load_run(str(run), None, "runs").tuner.net
    assert net is not None
    assert {p.dtype for p in net.parameters() if p.requires_grad} == {torch.float32}
    torch.testing.assert_close(logits(net.causal_lm), said, rtol=0, atol=0)


@pytest.mark.parametrize("more", [[], ["--adapter"]])
def test_an_export_without_its_base_is_one_line_and_writes_nothing(
    more: list[str], saved: Callable[..., Saved], tmp_path: Path
) -> None:
    run, _ = saved("qwen2", VARIANTS["plain"])
    shutil.rmtree(tmp_path / "base")
    words = r"model\.name: '.*base' was the base of this run, and does not exist now\. Put it back, or give its new"
    with pytest.raises(UserError, match=words) as found:
        export(["--run", str(run), "--to", str(tmp_path / "out"), *more])
    assert str(run / "config.yaml") in str(found.value) and not (tmp_path / "out").exists()
