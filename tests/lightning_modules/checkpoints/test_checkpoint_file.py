import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from datamodules.tokens.tokenizer import ThinkTokenizer
from errors import UserError
from lightning_modules.checkpoints.checkpoint_file import (
    KEY,
    CheckedCheckpointIO,
    check_identity,
    identity,
    read_checkpoint,
    weights_digest,
    write_checkpoint,
)
from lightning_modules.net.lora import LoraSettings
from lightning_modules.net.think_net import ThinkNet
from lightning_modules.update.optim import OptimSettings, build_optimizer
from tests.conftest import ROOT, TINY

CONTENT: dict[str, Any] = {"state_dict": {"rows": torch.arange(4.0)}, KEY: {"base": "b"}, "step": 3}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "checkpoints" / "last.ckpt"
    CheckedCheckpointIO().save_checkpoint(CONTENT, path)
    return path


def test_what_is_saved_is_read_and_torch_reads_it_too(saved: Path) -> None:
    for content in (read_checkpoint(saved), torch.load(saved, weights_only=True), torch.load(saved, mmap=True)):
        assert torch.equal(content["state_dict"]["rows"], CONTENT["state_dict"]["rows"])
        assert content["step"] == 3
    assert [path.name for path in saved.parent.iterdir()] == ["last.ckpt"]


def test_a_write_that_breaks_off_leaves_the_old_file(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = saved.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lightning_modules.checkpoints.checkpoint_file.os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        CheckedCheckpointIO().save_checkpoint(CONTENT | {"step": 4}, saved)
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == ["last.ckpt"]


WRITER = """
import sys, torch
from pathlib import Path
from lightning_modules.checkpoints.checkpoint_file import write_checkpoint
for step in range(1_000_000):
    write_checkpoint({"thinkwright": {}, "step": step, "rows": torch.full((2**20,), float(step))}, Path(sys.argv[1]))
    print(step, flush=True)
"""


@pytest.mark.slow
def test_a_kill_while_it_writes_leaves_a_whole_file(tmp_path: Path) -> None:
    """kill -9 at a random moment of a program that writes all the time: the file is that of the last write or of the
    one under way."""
    path = tmp_path / "last.ckpt"
    with subprocess.Popen([sys.executable, "-c", WRITER, path], cwd=ROOT, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        lines = [writer.stdout.readline() for _ in range(3)]
        time.sleep(random.SystemRandom().uniform(0, 0.1))
        writer.kill()
        lines += writer.stdout.readlines()
    done, content = int(lines[-1]), read_checkpoint(path)
    assert content["step"] in (done, done + 1)
    assert content["rows"].unique().tolist() == [content["step"]]


def test_a_file_that_would_run_code_is_not_opened(tmp_path: Path) -> None:
    """Nor is one whose digest is right."""

    class Code:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.system, (f"touch {tmp_path / 'ran'}",)

    write_checkpoint({KEY: Code()}, tmp_path / "foreign.ckpt")
    with pytest.raises(UserError, match=r"foreign\.ckpt' holds more than numbers and text"):
        read_checkpoint(tmp_path / "foreign.ckpt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("damage", ["truncated", "flipped", "foreign", "empty"])
def test_damage_is_seen_and_the_newest_whole_checkpoint_is_offered(saved: Path, damage: str) -> None:
    for age, name in enumerate(["step-2.ckpt", "best.ckpt", "step-1.ckpt"]):
        shutil.copy(saved, saved.with_name(name))
        os.utime(saved.with_name(name), (1000 - age, 1000 - age))
    saved.with_name("step-2.ckpt").write_bytes(saved.read_bytes()[:-1])  # the newest is damaged, too
    data = bytearray(saved.read_bytes())
    if damage == "flipped":
        data[len(data) // 2] ^= 1
    damaged = {"truncated": data[:-100], "flipped": data, "foreign": b"hello" * 100, "empty": b""}[damage]
    saved.write_bytes(bytes(damaged))
    offered = (
        r"last\.ckpt' is damaged or was not written by this program\. The last good one is --ckpt_path .*best\.ckpt"
    )
    with pytest.raises(UserError, match=offered):
        read_checkpoint(saved)


def test_missing_and_foreign_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        read_checkpoint(tmp_path / "no.ckpt")
    CheckedCheckpointIO().save_checkpoint({"a": 1}, tmp_path / "other.ckpt")
    with pytest.raises(UserError, match="was not written by this program"):
        read_checkpoint(tmp_path / "other.ckpt")


def test_identity_tells_models_apart(tmp_path: Path, tiny_tokenizer: ThinkTokenizer) -> None:
    mine = identity(TINY, True, tiny_tokenizer, LoraSettings())
    check_identity(mine, "tiny", mine)
    check_identity(mine, "tiny", identity(TINY, False, tiny_tokenizer, LoraSettings()))
    with pytest.raises(UserError, match=r"model\.lora\.rank: '4' differs from the checkpoint's, 8"):
        check_identity(mine, "tiny", identity(TINY, True, tiny_tokenizer, LoraSettings(rank=4)))
    copy = shutil.copytree(TINY, tmp_path / "copy")
    assert identity(copy, True, tiny_tokenizer, LoraSettings()) == mine
    config = (copy / "config.json").read_text()
    (copy / "config.json").write_text(config.replace('"num_hidden_layers": 4', '"num_hidden_layers": 5'))
    with pytest.raises(
        UserError, match=r"it has num_hidden_layers 5, the checkpoint's model 4\. Set model.name to tiny"
    ):
        check_identity(mine, "tiny", identity(copy, False, tiny_tokenizer, LoraSettings()))


@pytest.mark.parametrize(
    ("saved", "current", "message"),
    [
        (LoraSettings(), LoraSettings(alpha=8), r"model\.lora\.alpha: '8' differs from the checkpoint's, 16\.0\. Set"),
        (LoraSettings(), LoraSettings(use_rslora=True), r"Set model\.lora\.use_rslora to False"),
        (LoraSettings(), LoraSettings(peft={"use_dora": True}), r"Leave model\.lora\.peft\.use_dora out"),
        (LoraSettings(peft={"use_dora": True}), LoraSettings(), r"Set model\.lora\.peft\.use_dora to True"),
        (None, LoraSettings(), r"Set model\.lora null"),
        (LoraSettings(), None, r"Set model\.lora\.rank to 8"),
    ],
)
def test_other_adapters_are_refused_by_the_setting_that_differs(
    saved: LoraSettings | None, current: LoraSettings | None, message: str, tiny_tokenizer: ThinkTokenizer
) -> None:
    known = identity(TINY, False, tiny_tokenizer, current)
    with pytest.raises(UserError, match=message):
        check_identity(identity(TINY, False, tiny_tokenizer, saved), "tiny", known)


def test_adapters_of_a_four_bit_base_go_on_there_only(tiny_tokenizer: ThinkTokenizer) -> None:
    mine = identity(TINY, False, tiny_tokenizer, LoraSettings())
    check_identity(mine | {"quantize": "nf4"}, "tiny", mine)  # to be looked at, they may be put on the whole base
    with pytest.raises(UserError, match=r"model\.quantize: differs from the checkpoint's, nf4\. Set .* to nf4"):
        check_identity(mine | {"quantize": "nf4"}, "tiny", mine | {"quantize": None})
    with pytest.raises(UserError, match=r"model\.quantize: 'nf4' differs.* Set model\.quantize null"):
        check_identity(mine | {"quantize": None}, "tiny", mine | {"quantize": "nf4"})


def test_other_weights_of_the_same_shape_are_seen(tmp_path: Path) -> None:
    copy = shutil.copytree(TINY, tmp_path / "copy")
    data = bytearray((copy / "model.safetensors").read_bytes())
    data[len(data) // 2 + 5] ^= 1
    (copy / "model.safetensors").write_bytes(data)
    assert weights_digest(copy) != weights_digest(TINY)


def test_where_no_other_is_whole_it_says_so(saved: Path) -> None:
    saved.write_bytes(b"")
    with pytest.raises(UserError, match="No other beside it is whole, so start anew"):
        read_checkpoint(saved)


def test_qwen_of_1_8_billion_weights_makes_a_checkpoint_of_at_most_40_megabytes(tmp_path: Path) -> None:
    """With optimizer state: rank 8 on q, k, v, o, and the rows of both tags in embedding and head."""
    from transformers import AutoConfig, AutoModelForCausalLM

    shape = AutoConfig.for_model(
        "qwen2", vocab_size=151_936, hidden_size=2048, intermediate_size=5504, num_hidden_layers=24,
        num_attention_heads=16, num_key_value_heads=16, tie_word_embeddings=False,
    )  # fmt: skip
    with torch.device("meta"):
        net = ThinkNet(AutoModelForCausalLM.from_config(shape), ThinkTokenizer.load(str(TINY)), LoraSettings())
    trained = {name: torch.nn.Parameter(torch.zeros(p.shape)) for name, p in net.named_parameters() if p.requires_grad}
    assert sum(p.numel() for p in trained.values()) == 24 * 4 * 2 * 8 * 2048 + 2 * 2 * 2048
    optimizer = build_optimizer(trained.items(), OptimSettings())
    for parameter in trained.values():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    content = {"state_dict": {name: p.detach() for name, p in trained.items()}, KEY: {}}
    write_checkpoint(content | {"optimizer_states": [optimizer.state_dict()]}, tmp_path / "last.ckpt")
    assert (tmp_path / "last.ckpt").stat().st_size <= 40e6
