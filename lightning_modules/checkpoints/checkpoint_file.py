"""Checkpoint files: written whole or not at all, checked when read, and only ever for the model they were made with.

A file is what torch.save writes, followed by `sha256:` and the digest of it; torch.load reads it as it is. It holds the
trained tensors, the optimizer and the loop's position, so megabytes; the base model is named, not copied.
"""

import hashlib
import io
import json
import os
import pickle
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import CheckpointIO

from errors import UserError

MARK = b"sha256:"
TRAILER = len(MARK) + hashlib.sha256().digest_size
KEY = "thinkwright"  # where our part of a checkpoint is kept
ARCHITECTURE = (
    "model_type", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
    "vocab_size", "tie_word_embeddings",
)  # fmt: skip


def write_checkpoint(checkpoint: dict[str, Any], path: Path) -> None:
    """Writes beside the target, flushes to the disk, renames: a kill at any moment leaves the old or the new file."""
    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    data = buffer.getbuffer()
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with scratch.open("wb") as file:
            file.write(data)
            file.write(MARK + hashlib.sha256(data).digest())
            file.flush()
            os.fsync(file.fileno())
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the rename, too
    finally:
        os.close(folder)


class CheckedCheckpointIO(CheckpointIO):
    """Lightning's door to the two functions."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        write_checkpoint(checkpoint, Path(path))

    def load_checkpoint(
        self, path: str | Path, map_location: Any | None = "cpu", weights_only: bool | None = True
    ) -> dict[str, Any]:
        return read_checkpoint(Path(path))

    def remove_checkpoint(self, path: str | Path) -> None:
        Path(path).unlink(missing_ok=True)


def is_whole(path: Path) -> bool:
    """Whether the file is what was written, to the last bit."""
    return _content(path) is not None


def _content(path: Path) -> memoryview | None:
    """What torch.save wrote, if the digest after it is right."""
    data = memoryview(path.read_bytes())
    content, trailer = data[:-TRAILER], bytes(data[-TRAILER:])
    whole = trailer.startswith(MARK) and hashlib.sha256(content).digest() == trailer[len(MARK) :]
    return content if whole else None


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint, on the CPU. Raises UserError if it is missing, damaged or not one of ours."""
    fix = "give a file from a run's checkpoints folder"
    if not path.is_file():
        raise UserError("--ckpt_path", path, "does not exist", fix)
    content = _content(path)
    if content is None:
        problem = "is damaged or was not written by this program"
        raise UserError("--ckpt_path", path, problem, _way_out(path))
    try:
        checkpoint: dict[str, Any] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # loading anything else could run code that came with the file
        raise UserError("--ckpt_path", path, "holds more than numbers and text", fix) from error
    if KEY not in checkpoint:
        raise UserError("--ckpt_path", path, "was not written by this program", fix)
    return checkpoint


def _way_out(damaged: Path) -> str:
    """The newest whole checkpoint beside a damaged one."""
    others = [other for other in damaged.parent.glob("*.ckpt") if other != damaged]
    for other in sorted(others, key=lambda path: path.stat().st_mtime, reverse=True):
        if is_whole(other):
            return f"the last good one is --ckpt_path {other}"
    return "no other beside it is whole, so start anew without --ckpt_path"


def identity(folder: Path, weights: bool, tokenizer: Any, lora: Any | None) -> dict[str, Any]:
    """What a checkpoint and the model it is loaded into must agree on; without `weights` only what is quick."""
    config = json.loads((folder / "config.json").read_text())
    known = {key: config.get(key) for key in ARCHITECTURE}
    known["tokens"] = tokenizer.fingerprint
    known |= lora.identity() if lora else {"lora.rank": None}
    if weights:
        known["weights"] = weights_digest(folder)
    return known


def weights_digest(folder: Path) -> str:
    """Of the size, header and 8 samples of 64 KiB of each weight file: quick, and different for other weights."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        size = path.stat().st_size
        digest.update(str(size).encode())
        with path.open("rb") as file:
            digest.update(file.read(8 + min(int.from_bytes(file.read(8), "little"), 2**24)))
            for sample in range(8):
                file.seek(size * sample // 8)
                digest.update(file.read(2**16))
    return digest.hexdigest()[:16]


def check_identity(saved: dict[str, Any], name: str, current: dict[str, Any]) -> None:
    """Raises UserError naming the first difference between a checkpoint's model (called `name`) and the current one."""
    for key in [*current, *(key for key in saved if key.startswith("lora.") and key not in current)]:
        value, there = current.get(key), saved.get(key)
        if there == value:
            continue
        if key.startswith("lora.") or key == "quantize":
            fix = f"set model.{key} to {there}"
            if there is None:
                setting = f"model.{key.partition('.')[0]}"
                fix = f"leave model.{key} out" if key.startswith("lora.peft.") else f"set {setting} null"
            raise UserError(
                f"model.{key}",
                value,
                f"differs from the checkpoint's, {there}",
                f"{fix}, or train anew without --ckpt_path",
            )
        what = {"weights": "has other weights", "tokens": "has another tokenizer"}.get(
            key, f"has {key} {value}, the checkpoint's model {there}"
        )
        raise UserError(
            "model.name",
            None,
            f"the model given is not the one the checkpoint was trained on: it {what}",
            f"set model.name to {name}",
        )
