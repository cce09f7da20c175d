import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from errors import UserError
from lightning_modules.net.base_model import VOCABULARY_MULTIPLE, check_base, grow_vocabulary, load_base
from lightning_modules.net.lora import LoraSettings
from tests.conftest import TINY, random_lm


def test_from_scratch_weights_are_random_and_follow_the_seed() -> None:
    torch.manual_seed(1)
    one = load_base(str(TINY), None, "float32", from_scratch=True).state_dict()
    torch.manual_seed(1)
    two = load_base(str(TINY), None, "float32", from_scratch=True).state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert load_base(str(TINY), None, "bfloat16").dtype == torch.bfloat16


def test_a_broken_model_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text((TINY / "config.json").read_text())
    with pytest.raises(UserError, match=r"model.name: .* cannot be loaded"):
        load_base(str(tmp_path), None, "float32")
    (tmp_path / "model.safetensors").write_bytes((TINY / "model.safetensors").read_bytes()[:5000])
    with pytest.raises(UserError, match=r"model.name: .* cannot be loaded"):
        load_base(str(tmp_path), None, "float32")


@pytest.mark.parametrize(
    ("dtype", "lora", "from_scratch", "message"),
    [
        ("float16", None, False, r"model\.dtype: 'float16' is not precise enough for trained weights"),
        ("float32", LoraSettings(), True, r"model\.from_scratch: 'True' would leave random weights frozen"),
    ],
)
def test_settings_that_do_not_fit_each_other_are_refused(
    dtype: Any, lora: LoraSettings | None, from_scratch: bool, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        check_base(dtype, lora, from_scratch, None)


def test_settings_that_fit_each_other_are_not() -> None:
    check_base("float32", None, True, None)
    check_base("float16", LoraSettings(), False, None)


@pytest.mark.parametrize("kind", ["qwen2", "qwen2-tied"])
def test_a_vocabulary_grows_by_zeros_to_a_multiple_and_never_shrinks(kind: str) -> None:
    lm = random_lm(kind, 100)
    before = lm.get_input_embeddings().weight.clone()
    grow_vocabulary(lm, 90)
    assert lm.get_input_embeddings().weight.shape == before.shape
    grow_vocabulary(lm, 101)
    for module in (lm.get_input_embeddings(), lm.get_output_embeddings()):
        assert len(module.weight) == 2 * VOCABULARY_MULTIPLE and not module.weight[100:].any()
    assert torch.equal(lm.get_input_embeddings().weight[:100], before)


@pytest.mark.parametrize("from_scratch", [True, False])
def test_code_of_a_model_runs_only_if_it_is_trusted(tmp_path: Path, from_scratch: bool) -> None:
    folder = Path(shutil.copytree(TINY, tmp_path / "own"))
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.OwnModel"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text(
        "from transformers import Qwen2Config, Qwen2ForCausalLM\n"
        f"open({str(tmp_path / 'ran')!r}, 'w').close()\n"
        "class Own(Qwen2Config):\n    model_type = 'own'\n"
        "class OwnModel(Qwen2ForCausalLM):\n    config_class = Own\n"
    )
    with pytest.raises(
        UserError, match=r"model\.trust_remote_code: 'False' keeps the Python code of .*own from running"
    ):
        load_base(str(folder), None, "float32", from_scratch)
    assert not (tmp_path / "ran").exists()
    load_base(str(folder), None, "float32", from_scratch, trust_remote_code=True)
    assert (tmp_path / "ran").exists()
