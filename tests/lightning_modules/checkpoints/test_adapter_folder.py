"""A fit that begins with an adapter: one that `export --adapter` wrote, or one of plain peft."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from errors import UserError
from lightning_modules.checkpoints.content import Parent
from lightning_modules.export.adapter import export_adapter
from lightning_modules.export.card_facts import Card
from lightning_modules.net.lora import LoraSettings
from lightning_modules.think_tuner import ThinkTuner
from tests.conftest import KINDS, TEMPLATE, TINY, random_lm

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
LORA = LoraSettings(4, target_modules="all-linear")
VARIANTS = {
    "lora": (LORA, LORA),
    "dora": (LoraSettings(4, peft={"use_dora": True}), LoraSettings(4, peft={"use_dora": True})),
    "bias": (
        LoraSettings(4, target_modules=["q_proj"], peft={"lora_bias": True}),
        LoraSettings(4, target_modules=["q_proj"], peft={"lora_bias": True}),
    ),
    "ranks": (
        LoraSettings(4, use_rslora=True, peft={"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"k_proj": 3}}),
        LoraSettings(4, use_rslora=True, peft={"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"k_proj": 3}}),
    ),
    # Its export is an ordinary adapter of twice the rank and alpha
    "pissa": (LoraSettings(4, peft={"init_lora_weights": "pissa"}), LoraSettings(8, 32.0)),
}
GRANDPARENT = Parent("/somewhere/runs/a/checkpoints/best.ckpt", 5, "0123")


def trained(lora: LoraSettings, name: str = str(TINY)) -> ThinkTuner:
    torch.manual_seed(1)
    tuner = ThinkTuner(name, lora=lora)
    tuner.configure_model()
    with torch.no_grad():
        for parameter in tuner.trained().values():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    return tuner


def exported(tuner: ThinkTuner, folder: Path) -> Path:
    net = tuner.net  # which the export gives up, to have memory for the adapter that it reads again
    export_adapter(tuner, TEMPLATE, folder, Card(tuner.name, None, {}, Path("best.ckpt"), None, 7, [GRANDPARENT]))
    tuner.net = net
    return folder


def started(folder: Path, lora: LoraSettings | None = LORA, name: str = str(TINY), **more: Any) -> ThinkTuner:
    torch.manual_seed(2)
    tuner = ThinkTuner(name, lora=lora, start=str(folder), **more)
    tuner.configure_model()
    return tuner


def plain(folder: Path, base: str = str(TINY), **settings: Any) -> Path:
    """An adapter that peft wrote without this program, with random values."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    given: dict[str, Any] = {"r": 4, "lora_alpha": 16, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}
    torch.manual_seed(3)
    lm: Any = get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(**given | settings))
    for name, parameter in lm.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    lm.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that `export --adapter` wrote. Not to be written to."""
    return exported(trained(LORA), tmp_path_factory.mktemp("adapters") / "ours")


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_model_that_begins_with_an_export_computes_what_the_exported_one_does(
    variant: str, tmp_path: Path, make_batch: Callable[..., Any]
) -> None:
    lora, after = VARIANTS[variant]
    parent = trained(lora)
    child = started(exported(parent, tmp_path / "out"), after)
    batch = make_batch(0, 3)
    losses = [one.net.eval()(batch).total.item() for one in (parent, child)]  # type: ignore[union-attr]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    if lora == after:
        theirs = parent.trained()
        assert all(torch.equal(p, theirs[name]) for name, p in child.trained().items())


@pytest.mark.parametrize("kind", KINDS)
def test_embeddings_of_new_tokens_come_along_for_tied_and_untied_bases(kind: str, tmp_path: Path) -> None:
    base = tmp_path / "base"
    random_lm(kind).save_pretrained(base)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(TINY / name, base / name)
    parent = trained(LORA, str(base))
    child = started(exported(parent, tmp_path / "out"), LORA, str(base))
    assert any("embeddings" in name for name in parent.trained())
    assert all(torch.equal(p, parent.trained()[name]) for name, p in child.trained().items())


def test_an_export_names_its_step_and_its_parents(adapter: Path) -> None:
    first, second = started(adapter).start.parents
    assert (first.path, first.step, second) == (str(adapter), 7, GRANDPARENT)


def test_a_plain_adapter_is_put_in_and_what_it_lacks_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "thinkwright")
    folder = plain(tmp_path / "plain")
    child = started(folder)
    assert child.net is not None
    from lightning_modules.internals.peft_internals import adapter_tensors

    held = load_file(folder / WEIGHTS)
    ours = adapter_tensors(child.net.lm)
    assert ours.keys() == held.keys() and all(torch.equal(ours[name], held[name]) for name in held)
    new = ThinkTuner(str(TINY), lora=LORA)
    new.configure_model()
    mine = {name: p for name, p in child.trained().items() if "lora_" not in name}
    assert mine and all(torch.equal(p, new.trained()[name]) for name, p in mine.items())  # of new_token_init
    assert "has no embeddings of the new tokens (<think>, </think>)" in caplog.text
    (parent,) = child.start.parents
    assert (parent.path, parent.step) == (str(folder), None)


def changed(adapter: Path, folder: Path, **settings: Any) -> Path:
    """A copy of an adapter with other settings in its config."""
    shutil.copytree(adapter, folder)
    path = folder / CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    return folder


@pytest.mark.parametrize(
    ("lora", "words"),
    [
        (LoraSettings(8, target_modules="all-linear"), r"^model\.lora\.rank: '8' differs from the adapter's, 4\. Set"),
        (LoraSettings(4, 8, target_modules="all-linear"), r"^model\.lora\.alpha: '8' differs from the adapter's, 16"),
        (LoraSettings(4, 16, 0, "all-linear", True), r"^model\.lora\.use_rslora: 'True' differs .* Remove"),
        (LoraSettings(4, target_modules=["q_proj"]), r"^model\.lora\.target_modules: 'q_proj' differs .*down_proj"),
        (
            LoraSettings(4, target_modules="all-linear", peft={"use_dora": True}),
            r"^model\.lora\.peft\.use_dora: 'True' differs .* Remove",
        ),
        (
            LoraSettings(4, target_modules="all-linear", peft={"alpha_pattern": {"q_proj": 3}}),
            r"^model\.lora\.peft\.alpha_pattern: .* differs from the adapter's, \{\}\. Remove",
        ),
        (
            LoraSettings(4, target_modules="all-linear", peft={"init_lora_weights": "pissa"}),
            r"^model\.lora\.peft\.init_lora_weights: 'pissa' would change the base",
        ),
        (None, r"^model\.start: .* is an adapter, and model\.lora null trains all weights"),
    ],
)  # fmt: skip
def test_other_adapters_are_refused_before_the_base_is_loaded(
    lora: LoraSettings | None, words: str, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lightning_modules.think_tuner.load_base", lambda *_: pytest.fail("loaded"))
    with pytest.raises(UserError, match=words):
        started(adapter, lora)


def test_other_tokens_are_refused(adapter: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has another tokenizer"):
        started(adapter, new_tokens=["<step>"])
    # Of an adapter without our facts only the ids are known
    other = changed(plain(tmp_path / "plain"), tmp_path / "other", trainable_token_indices={"embed_tokens": [5]})
    with pytest.raises(UserError, match=r"^model\.start: .* holds embeddings of the tokens \[5\], and the new tokens"):
        started(other)


def test_an_adapter_of_another_base_is_refused(adapter: Path, tmp_path: Path, caplog: Any) -> None:
    base = shutil.copytree(TINY, tmp_path / "base")
    started(adapter, name=str(base))  # a copy of the base
    foreign = plain(tmp_path / "plain", str(base))
    started(foreign)
    tensors = load_file(base / "model.safetensors")
    tensors[next(iter(tensors))] += 1
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"^model\.name: .* it has other weights in model\.safetensors"):
        started(adapter, name=str(base))
    with pytest.raises(UserError, match=r"^model\.name: .* is not the base of the adapter"):
        started(foreign)
    shutil.rmtree(base)
    started(foreign)
    assert f"the adapter's base, {base}, is not here to be compared with" in caplog.text


def test_damaged_folders_are_refused(adapter: Path, tmp_path: Path) -> None:
    def refused(name: str, change: Callable[[Path], Any], words: str) -> None:
        folder = shutil.copytree(adapter, tmp_path / name)
        change(folder)
        with pytest.raises(UserError, match=rf"^model\.start: .*{words}"):
            started(folder)

    def flip(folder: Path) -> None:
        data = bytearray((folder / WEIGHTS).read_bytes())
        data[-9] ^= 1
        (folder / WEIGHTS).write_bytes(data)

    def cut(folder: Path) -> None:
        (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-100])

    refused("flipped", flip, r"safetensors' is damaged \(its digest differs\)")
    refused("cut", cut, r"safetensors' is damaged \(")
    refused("gone", lambda folder: (folder / WEIGHTS).unlink(), f"has no {WEIGHTS}")
    refused("half", lambda folder: (folder / CONFIG).write_text('{"peft_type": "LO'), r"json' is damaged \(")
    refused("list", lambda folder: (folder / CONFIG).write_text("[]"), "is damaged .it holds no object")


def test_what_lora_does_not_train_is_refused(adapter: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds IA3, not LoRA"):
        started(changed(adapter, tmp_path / "ia3", peft_type="IA3"))
    with pytest.raises(UserError, match=r"was trained on a base that pissa has changed"):
        started(changed(adapter, tmp_path / "pissa", init_lora_weights="pissa"))
    whole = plain(tmp_path / "whole", modules_to_save=["embed_tokens"], target_modules=["q_proj"])
    with pytest.raises(UserError, match=r"holds whole matrices, which this program does not train: .*embed_tokens"):
        started(whole, LoraSettings(4, target_modules=["q_proj"]))
    part = plain(tmp_path / "part", layers_to_transform=[0], target_modules=["q_proj"])
    with pytest.raises(UserError, match=r"does not fit the model: .*layers\.1\..* is missing in it, and of shape"):
        started(part, LoraSettings(4, target_modules=["q_proj"]))
