"""A checkpoint is refused for another model, with the first difference."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from datamodules.tokens.tokenizer import ThinkTokenizer
from errors import UserError
from lightning_modules.checkpoints import model_identity
from lightning_modules.checkpoints.content import CheckpointContent
from lightning_modules.checkpoints.model_identity import (
    ModelIdentity,
    check_settings,
    settings_identity,
)
from lightning_modules.net.lora import LoraSettings
from lightning_modules.think_tuner import ThinkTuner
from tests.conftest import TINY


def identity_of(content: CheckpointContent, **settings: Any) -> tuple[ModelIdentity, CheckpointContent]:
    """A model's identity, and the content of its checkpoint."""
    mine = ModelIdentity(ThinkTuner(**{"name": str(TINY)} | settings))
    return mine, replace(content, identity=mine.values(), base="tiny")


def test_the_same_model_in_another_folder_is_accepted(content: CheckpointContent, tmp_path: Path) -> None:
    mine, saved = identity_of(content)
    copy = shutil.copytree(TINY, tmp_path / "copy")
    there = ModelIdentity(ThinkTuner(name=str(copy)))
    there.check(saved, resumes=True)
    assert there.values() == mine.values()


def test_another_architecture_is_refused(content: CheckpointContent, tmp_path: Path) -> None:
    _, saved = identity_of(content)
    copy = shutil.copytree(TINY, tmp_path / "copy")
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"intermediate_size": 7}))
    words = rf"it has intermediate_size 7, the checkpoint's model {config['intermediate_size']}\. Set model.name to"
    with pytest.raises(UserError, match=words):
        ModelIdentity(ThinkTuner(name=str(copy))).check(saved)


def test_other_weights_of_the_same_shape_are_refused(content: CheckpointContent, tmp_path: Path) -> None:
    _, saved = identity_of(content)
    copy = shutil.copytree(TINY, tmp_path / "copy")
    data = bytearray((copy / "model.safetensors").read_bytes())
    data[len(data) // 2 + 5] ^= 1
    (copy / "model.safetensors").write_bytes(data)
    with pytest.raises(UserError, match=r"it has other weights in model\.safetensors"):
        ModelIdentity(ThinkTuner(name=str(copy))).check(saved)


@pytest.mark.parametrize(("key", "value"), [("rms_norm_eps", 1e-3), ("hidden_act", "gelu"), ("attention_dropout", 0.5)])
def test_a_config_that_was_edited_is_refused_and_named(
    content: CheckpointContent, tmp_path: Path, key: str, value: object
) -> None:
    _, saved = identity_of(content)
    copy = shutil.copytree(TINY, tmp_path / "copy")
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {key: value}))
    with pytest.raises(UserError, match=rf"it has {key} {value}, the checkpoint's model {config[key]}"):
        ModelIdentity(ThinkTuner(name=str(copy))).check(saved)


def test_a_tokenizer_with_swapped_merges_is_refused(content: CheckpointContent, tmp_path: Path) -> None:
    _, saved = identity_of(content)
    copy = shutil.copytree(TINY, tmp_path / "copy")
    state = json.loads((copy / "tokenizer.json").read_text())
    merges = state["model"]["merges"]
    merges[0], merges[-1] = merges[-1], merges[0]
    (copy / "tokenizer.json").write_text(json.dumps(state))
    with pytest.raises(UserError, match="it has another tokenizer"):
        ModelIdentity(ThinkTuner(name=str(copy))).check(saved)


def test_weights_that_are_drawn_at_random_have_no_identity(content: CheckpointContent) -> None:
    mine, saved = identity_of(content, from_scratch=True, lora=None)
    assert "weights" not in mine.values()
    mine.check(saved, resumes=True)


def test_a_checkpoint_is_compared_once_and_another_one_again(
    content: CheckpointContent, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, saved = identity_of(content)
    compared: list[str] = []
    original = model_identity.check_settings

    def note(saved: dict[str, Any], base: str, *more: Any) -> None:
        compared.append(base)
        original(saved, base, *more)

    monkeypatch.setattr(model_identity, "check_settings", note)
    mine.check(saved, resumes=True)
    mine.check(saved)
    assert compared == ["tiny"]
    config = mine.values()["config"] | {"hidden_size": 256}
    other = replace(saved, identity=saved.identity | {"config": config})
    for _ in range(2):
        with pytest.raises(UserError, match="hidden_size"):
            mine.check(other)
    assert len(compared) == 3


@pytest.mark.parametrize(
    ("saved", "current", "message"),
    [
        (LoraSettings(), LoraSettings(rank=4), r"model\.lora\.rank: '4' differs from the checkpoint's, 8"),
        (LoraSettings(), LoraSettings(alpha=8), r"model\.lora\.alpha: '8' differs from the checkpoint's, 16\.0\. Set"),
        (LoraSettings(), LoraSettings(use_rslora=True), r"Set model\.lora\.use_rslora to False"),
        (LoraSettings(), LoraSettings(peft={"use_dora": True}), r"Remove model\.lora\.peft\.use_dora"),
        (LoraSettings(peft={"use_dora": True}), LoraSettings(), r"Set model\.lora\.peft\.use_dora to True"),
        (None, LoraSettings(), r"Set model\.lora null"),
        (LoraSettings(), None, r"Set model\.lora\.rank to 8"),
    ],
)
def test_other_adapters_are_refused_by_the_setting_that_differs(
    saved: LoraSettings | None, current: LoraSettings | None, message: str, tiny_tokenizer: ThinkTokenizer
) -> None:
    known = settings_identity(TINY, tiny_tokenizer, current)
    with pytest.raises(UserError, match=message):
        check_settings(settings_identity(TINY, tiny_tokenizer, saved), "tiny", known)


def test_a_fit_with_adapters_of_a_4_bit_base_resumes_there_only(tiny_tokenizer: ThinkTokenizer) -> None:
    mine = settings_identity(TINY, tiny_tokenizer, LoraSettings())
    check_settings(mine | {"quantize": "nf4"}, "tiny", mine)  # other commands may put them on the full base
    with pytest.raises(UserError, match=r"model\.quantize: differs from the checkpoint's, nf4\. Set .* to nf4"):
        check_settings(mine | {"quantize": "nf4"}, "tiny", mine | {"quantize": None})
    with pytest.raises(UserError, match=r"model\.quantize: 'nf4' differs.* Set model\.quantize null"):
        check_settings(mine | {"quantize": None}, "tiny", mine | {"quantize": "nf4"})


def test_the_identity_is_that_of_the_files_that_were_loaded(tmp_path: Path) -> None:
    copy = shutil.copytree(TINY, tmp_path / "copy")
    tuner = ThinkTuner(name=str(copy))
    tuner.configure_model()
    with (copy / "model.safetensors").open("ab") as file:
        file.write(b"\0")
    assert tuner.identity.values() == ModelIdentity(ThinkTuner(name=str(TINY))).values()


def test_a_base_with_an_adapter_beside_it_is_refused_before_it_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = shutil.copytree(TINY, tmp_path / "copy")
    (copy / "adapter_config.json").write_text("{}")
    monkeypatch.setattr("lightning_modules.think_tuner.load_base", lambda *_: pytest.fail("loaded"))
    with pytest.raises(UserError, match="holds an adapter"):
        ThinkTuner(name=str(copy)).configure_model()
