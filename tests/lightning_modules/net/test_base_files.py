"""A base is known by every file and value that decides what it computes."""

import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from errors import UserError
from lightning_modules.net import base_files
from lightning_modules.net.base_files import config_values, first_difference, weight_digests
from tests.conftest import TINY, random_lm


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return Path(shutil.copytree(TINY, tmp_path / "base"))


def change(folder: Path, **values: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | values))


def flipped(path: Path, bit: int) -> None:
    with path.open("r+b") as file:
        file.seek(bit // 8)
        byte = file.read(1)[0]
        file.seek(bit // 8)
        file.write(bytes([byte ^ 1 << bit % 8]))


# Weights


def test_each_of_200_flipped_bits_changes_the_digest_of_the_weights(base: Path) -> None:
    draw, path = random.Random(0), base / "model.safetensors"
    before, bits = weight_digests(base), 8 * path.stat().st_size
    for _ in range(200):
        bit = draw.randrange(bits)
        flipped(path, bit)
        assert weight_digests(base) != before
        flipped(path, bit)
    assert weight_digests(base) == before


def parts(base: Path, kind: str) -> list[str]:
    """Store the weights in another form, and return the names of its files."""
    from safetensors.torch import load_file

    tensors = load_file(base / "model.safetensors")
    (base / "model.safetensors").unlink()
    half = len(tensors) // 2
    if kind == "one .bin":
        torch.save(tensors, base / "pytorch_model.bin")
        return ["pytorch_model.bin"]
    end = "safetensors" if kind == "safetensors in parts" else "bin"
    start = "model" if end == "safetensors" else "pytorch_model"
    names = [f"{start}-0000{k}-of-00002.{end}" for k in (1, 2)]
    places = {key: names[k >= half] for k, key in enumerate(tensors)}
    for name in names:
        some = {key: tensor for key, tensor in tensors.items() if places[key] == name}
        save_file(some, base / name, {"format": "pt"}) if end == "safetensors" else torch.save(some, base / name)
    (base / f"{start}.{end}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return names


@pytest.mark.parametrize("kind", ["safetensors in parts", "one .bin", ".bin in parts"])
def test_the_digests_are_of_the_files_that_transformers_loads(base: Path, kind: str) -> None:
    from transformers import AutoModelForCausalLM

    names = parts(base, kind)
    (base / "consolidated.safetensors").write_bytes(b"not loaded")
    assert list(weight_digests(base)) == names
    AutoModelForCausalLM.from_pretrained(base)
    for name in names:
        before = weight_digests(base)
        flipped(base / name, 8 * (base / name).stat().st_size - 9)
        assert {key for key, one in weight_digests(base).items() if before[key] != one} == {name}


def test_the_first_form_that_transformers_finds_is_the_one_that_counts(base: Path) -> None:
    shutil.copy(base / "model.safetensors", base / "pytorch_model.bin")
    assert list(weight_digests(base)) == ["model.safetensors"]
    os.rename(base / "model.safetensors", base / "mine.safetensors")
    change(base, transformers_weights="mine.safetensors")
    assert list(weight_digests(base)) == ["mine.safetensors"]


@pytest.mark.parametrize(
    ("index", "words"),
    [
        ({"weight_map": {"a": "../other.safetensors"}}, "names '../other.safetensors' as a file"),
        ({"weight_map": {"a": 3}}, "names 3 as a file"),
        ({"weight_map": ["a"]}, "names None as a file"),
        ({"weight_map": {"a": "gone.safetensors"}}, "gone.safetensors.* is missing"),
        ([], "is damaged"),
    ],
)
def test_an_index_that_is_wrong_is_one_line(base: Path, index: Any, words: str) -> None:
    (base / "model.safetensors").unlink()
    (base / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match=words):
        weight_digests(base)


def test_a_folder_without_weights_or_with_an_adapter_is_refused(base: Path) -> None:
    (base / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match="holds an adapter"):
        weight_digests(base)
    (base / "adapter_config.json").unlink()
    (base / "model.safetensors").unlink()
    with pytest.raises(UserError, match="has no weights"):
        weight_digests(base)


# Config


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"rms_norm_eps": 1e-5}, "rms_norm_eps"),
        ({"rope_parameters": {"rope_theta": 1e6, "rope_type": "default"}}, "rope_parameters.rope_theta"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"attention_dropout": 0.1}, "attention_dropout"),
        ({"use_sliding_window": True, "sliding_window": 8}, "sliding_window"),
        ({"attention_bias": True}, "attention_bias"),
        ({"max_position_embeddings": 512}, "max_position_embeddings"),
        ({"pad_token_id": None}, "pad_token_id"),
    ],
)
def test_a_value_that_changes_the_computation_is_the_difference(base: Path, values: dict[str, Any], key: str) -> None:
    before = config_values(base)
    change(base, **values)
    found = first_difference(config_values(base), before)
    assert found is not None
    assert found[0] == key


def test_other_end_tokens_of_generation_are_a_difference(base: Path) -> None:
    before = config_values(base)
    (base / "generation_config.json").write_text(json.dumps({"eos_token_id": [544, 542]}))
    assert first_difference(config_values(base), before) == ("generation_config.eos_token_id", [544, 542], [544])


@pytest.mark.parametrize("key", sorted(base_files.WITHOUT_MEANING))
def test_a_key_without_meaning_is_no_difference(base: Path, key: str) -> None:
    before = config_values(base)
    change(base, **{key: "other"})
    assert config_values(base) == before


@pytest.mark.parametrize("kind", ["qwen2", "qwen3", "llama"])
def test_the_form_of_another_release_is_no_difference(tmp_path: Path, kind: str) -> None:
    random_lm(kind).config.save_pretrained(tmp_path)
    now = config_values(tmp_path)
    older = {key: value for key, value in now.items() if key not in ("rope_parameters", "layer_types")}
    assert first_difference(now, older | {"rope_theta": now["rope_parameters"]["rope_theta"]}) is None
    assert first_difference(now, older | {"rope_theta": 7.0}) is not None


def test_an_architecture_that_transformers_does_not_know_is_compared_as_it_is() -> None:
    assert first_difference({"model_type": "new", "a": 1}, {"model_type": "new", "a": 1}) is None
    assert first_difference({"model_type": "new", "a": 1}, {"model_type": "new", "a": 2}) == ("a", 1, 2)


@pytest.mark.parametrize("text", ["", "{", "[]", "3"])
def test_a_damaged_config_is_one_line(base: Path, text: str) -> None:
    (base / "config.json").write_text(text)
    with pytest.raises(UserError, match=r"config\.json.* is damaged"):
        config_values(base)
