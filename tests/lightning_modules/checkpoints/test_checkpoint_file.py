import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import xxhash

from datamodules.tokens.tokenizer import ThinkTokenizer
from errors import UserError
from lightning_modules.checkpoints.checkpoint_file import (
    CHECKSUM_MARK,
    PARTS,
    CheckedCheckpointIO,
    read_checkpoint,
    write_checkpoint,
)
from lightning_modules.checkpoints.content import CONTENT_KEY, CheckpointContent
from lightning_modules.net.lora import LoraSettings
from lightning_modules.net.think_net import ThinkNet
from lightning_modules.update.optim import OptimSettings, build_optimizer
from tests.conftest import ROOT, TINY


@pytest.fixture
def saved(tmp_path: Path, checkpoint: dict[str, Any]) -> Path:
    path = tmp_path / "checkpoints" / "last.ckpt"
    CheckedCheckpointIO().save_checkpoint(checkpoint, path)
    return path


def test_a_written_file_is_read_by_us_and_by_torch(saved: Path, checkpoint: dict[str, Any]) -> None:
    for again in (read_checkpoint(saved), torch.load(saved, weights_only=True), torch.load(saved, mmap=True)):
        assert torch.equal(again["state_dict"]["rows"], checkpoint["state_dict"]["rows"])
        assert again["global_step"] == 3
    assert [path.name for path in saved.parent.iterdir()] == ["last.ckpt"]


def test_the_file_is_on_the_disk_before_its_name_and_the_name_before_the_end(
    saved: Path, checkpoint: dict[str, Any], disk_order: list[str]
) -> None:
    """A power failure leaves the old or the new file: the order is fsync of the file, rename, fsync of the folder."""
    write_checkpoint(checkpoint, saved)
    assert disk_order[0].endswith("-last.ckpt")
    assert disk_order[1:] == ["rename", saved.parent.name]


def test_an_interrupted_write_leaves_the_old_file(
    saved: Path, checkpoint: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = saved.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"run\.root: .*last\.ckpt' cannot be written: the disk is full"):
        CheckedCheckpointIO().save_checkpoint(checkpoint | {"global_step": 4}, saved)
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == ["last.ckpt"]


WRITER = """
import sys, torch
from pathlib import Path
from lightning_modules.checkpoints.checkpoint_file import write_checkpoint
from lightning_modules.checkpoints.content import CONTENT_KEY, CheckpointContent
content = CheckpointContent("base", None, {}, 1, [], 0, None).to_dict()
for step in range(1_000_000):
    write_checkpoint({CONTENT_KEY: content, "step": step, "rows": torch.full((2**20,), float(step))}, Path(sys.argv[1]))
    print(step, flush=True)
"""


@pytest.mark.slow
def test_a_kill_while_it_writes_leaves_a_whole_file(tmp_path: Path) -> None:
    """kill -9 at a random moment of a program that writes without a pause: the file is of the last write or of the
    write that was interrupted."""
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
    """Not even if its checksum is right."""

    class Code:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.system, (f"touch {tmp_path / 'ran'}",)

    write_checkpoint({CONTENT_KEY: Code()}, tmp_path / "foreign.ckpt")
    with pytest.raises(UserError, match=r"foreign\.ckpt' holds more than numbers and text"):
        read_checkpoint(tmp_path / "foreign.ckpt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("damage", ["truncated", "flipped", "foreign", "empty"])
def test_a_damaged_file_is_refused_with_the_newest_whole_checkpoint(saved: Path, damage: str) -> None:
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
        r"last\.ckpt' is damaged or was not written by this program\. The newest whole one is --ckpt_path .*best\.ckpt"
    )
    with pytest.raises(UserError, match=offered):
        read_checkpoint(saved)


def test_missing_and_foreign_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        read_checkpoint(tmp_path / "no.ckpt")
    CheckedCheckpointIO().save_checkpoint({"a": 1}, tmp_path / "other.ckpt")
    with pytest.raises(UserError, match="was not written by this program"):
        read_checkpoint(tmp_path / "other.ckpt")


def test_the_message_says_that_no_other_file_is_whole(saved: Path) -> None:
    saved.write_bytes(b"")
    with pytest.raises(UserError, match="No other file beside it is whole, so train anew"):
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
    content = {"state_dict": {name: p.detach() for name, p in trained.items()}, CONTENT_KEY: {}}
    write_checkpoint(content | {"optimizer_states": [optimizer.state_dict()]}, tmp_path / "last.ckpt")
    assert (tmp_path / "last.ckpt").stat().st_size <= 40e6


def test_lightning_gets_the_checkpoint_that_was_already_read(
    saved: Path, content: CheckpointContent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is opened once; a second load, as of best.ckpt after it was written anew, reads it again."""
    opened: list[Path] = []
    original = Path.open

    def note_open(path: Path, *args: Any, **kwargs: Any) -> Any:
        opened.append(path)
        return original(path, *args, **kwargs)

    monkeypatch.setattr(Path, "open", note_open)
    reader = CheckedCheckpointIO()
    assert reader.read_ahead(saved).identity == content.identity
    assert reader.load_checkpoint(saved)["global_step"] == 3
    assert opened == [saved]
    reader.load_checkpoint(saved)
    assert opened == [saved, saved]


def test_a_file_of_another_kind_with_a_right_digest_is_refused(tmp_path: Path) -> None:
    for name, data in (("text", b"hello"), ("empty", b""), ("zip", b"PK\x03\x04" + b"x" * 100)):
        path = tmp_path / f"{name}.ckpt"
        path.write_bytes(data + CHECKSUM_MARK + xxhash.xxh3_128_digest(data))
        with pytest.raises(UserError, match=r"ckpt' (is no checkpoint|holds more than numbers)"):
            read_checkpoint(path)


def test_a_full_disk_leaves_the_old_file_and_names_the_setting(saved: Path, checkpoint: dict[str, Any]) -> None:
    """The limit on the size of a file makes the system refuse the write itself, inside of torch.save."""
    before, limits = saved.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(UserError, match=r"run\.root: .*last\.ckpt' cannot be written: the disk is full"):
            write_checkpoint(checkpoint | {"rows": torch.zeros(10**6)}, saved)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == ["last.ckpt"]


MEMORY = """
import sys, threading, time, torch
from pathlib import Path
from lightning_modules.checkpoints.checkpoint_file import read_checkpoint, write_checkpoint
from lightning_modules.checkpoints.content import CONTENT_KEY, CheckpointContent

def anonymous() -> int:
    line = next(line for line in open("/proc/self/status") if line.startswith("RssAnon"))
    return int(line.split()[1]) * 1024

def peak(work) -> int:
    before, seen, ended = anonymous(), [0], threading.Event()
    def watch():
        while not ended.wait(0.002):
            seen[0] = max(seen[0], anonymous())
    thread = threading.Thread(target=watch)
    thread.start()
    kept = work()
    ended.set()
    thread.join()
    return max(seen[0], anonymous()) - before

content = CheckpointContent("base", None, {}, 1, [], 0, None).to_dict()
tensors = {str(k): torch.full((2**22,), float(k)) for k in range(10)}
path = Path(sys.argv[1])
print(peak(lambda: write_checkpoint({CONTENT_KEY: content, "state_dict": tensors}, path)))
del tensors
print(peak(lambda: read_checkpoint(path)))
"""


@pytest.mark.slow
def test_writing_and_reading_cost_less_than_a_tenth_of_the_file_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    done = subprocess.run([sys.executable, "-c", MEMORY, path], cwd=ROOT, capture_output=True, text=True, check=True)
    writing, reading = map(int, done.stdout.split())
    assert path.stat().st_size > 160e6
    assert max(writing, reading) < 0.1 * path.stat().st_size


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("wrong", [None, (), "missing"])
def test_a_part_that_is_no_part_of_a_checkpoint_is_named(
    part: str, wrong: Any, checkpoint: dict[str, Any], tmp_path: Path
) -> None:
    """With a right digest: another program, or a bug, wrote it."""
    path = tmp_path / "a.ckpt"
    write_checkpoint(checkpoint, path)
    CheckedCheckpointIO().read_ahead(path)
    write_checkpoint({name: value for name, value in checkpoint.items() if name != part}, path)
    if wrong != "missing":
        write_checkpoint(checkpoint | {part: wrong}, path)
    with pytest.raises(UserError, match=f"--ckpt_path: .* has no readable {part}"):
        CheckedCheckpointIO().read_ahead(path)
