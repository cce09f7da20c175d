"""Checkpoint files: the one writer and the one reader.

A file is the output of torch.save, followed by `sha256:` and the digest of that output; torch.load ignores the end. A
write is atomic: a kill at any moment leaves the old or the new file whole.
"""

import hashlib
import io
import os
import pickle
from pathlib import Path
from typing import Any, BinaryIO

import torch
from lightning.pytorch.plugins.io import CheckpointIO

from errors import UserError
from lightning_modules.checkpoints.content import CheckpointContent

CHECKSUM_MARK = b"sha256:"
CHECKSUM_BYTES = len(CHECKSUM_MARK) + hashlib.sha256().digest_size
CHUNK = 2**20  # bytes hashed at once

_kept: dict[Path, dict[str, Any]] = {}  # checkpoints that Lightning is about to load, by resolved path


def write_checkpoint(checkpoint: dict[str, Any], path: Path) -> None:
    """Write a checkpoint beside its place, flush it to the disk, and rename it."""
    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    data = buffer.getbuffer()
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with scratch.open("wb") as file:
            file.write(data)
            file.write(CHECKSUM_MARK + hashlib.sha256(data).digest())
            file.flush()
            os.fsync(file.fileno())
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # else a power failure can undo the rename
    finally:
        os.close(folder)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return a checkpoint, on the CPU. Raise UserError if it is missing, damaged, or not readable by this version."""
    fix = "give a file from a run's checkpoints folder"
    if not path.is_file():
        raise UserError("--ckpt_path", path, "does not exist", fix)
    with path.open("rb") as file:
        if not _has_right_checksum(file):
            problem = "is damaged or was not written by this program"
            raise UserError("--ckpt_path", path, problem, _newest_whole_beside(path))
        file.seek(0)
        try:
            checkpoint: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:  # a pickle with other objects could run code
            raise UserError("--ckpt_path", path, "holds more than numbers and text", fix) from error
    CheckpointContent.of(checkpoint, path)  # raises if this version cannot read it
    return checkpoint


def step_of(path: Path) -> int | None:
    """Return the optimizer step of a checkpoint without reading its tensors; None if it is damaged."""
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        return int(checkpoint["global_step"])
    except Exception:  # torch raises many kinds for damaged files
        return None


def read_and_keep(path: Path) -> CheckpointContent:
    """Return our part of a checkpoint, and keep the whole for Lightning, which loads the same file later."""
    _kept[path.resolve()] = checkpoint = read_checkpoint(path)
    return CheckpointContent.of(checkpoint, path)


def release_kept() -> None:
    """Free the checkpoints that were kept: some strategies load the file by themselves."""
    _kept.clear()


class CheckedCheckpointIO(CheckpointIO):
    """Makes Lightning use the writer and the reader of this file."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        write_checkpoint(checkpoint, Path(path))

    def load_checkpoint(
        self, path: str | Path, map_location: Any | None = "cpu", weights_only: bool | None = True
    ) -> dict[str, Any]:
        kept = _kept.pop(Path(path).resolve(), None)
        return read_checkpoint(Path(path)) if kept is None else kept

    def remove_checkpoint(self, path: str | Path) -> None:
        Path(path).unlink(missing_ok=True)


def _has_right_checksum(file: BinaryIO) -> bool:
    """Return whether the digest at the end of an open file is that of the bytes before it."""
    remaining = os.fstat(file.fileno()).st_size - CHECKSUM_BYTES
    digest = hashlib.sha256()
    while remaining > 0:
        chunk = file.read(min(CHUNK, remaining))
        if not chunk:
            return False
        digest.update(chunk)
        remaining -= len(chunk)
    return file.read() == CHECKSUM_MARK + digest.digest()


def _newest_whole_beside(damaged: Path) -> str:
    """Return the way out of a damaged file: the newest whole checkpoint in its folder."""
    others = [other for other in damaged.parent.glob("*.ckpt") if other != damaged]
    for other in sorted(others, key=lambda path: path.stat().st_mtime, reverse=True):
        with other.open("rb") as file:
            if _has_right_checksum(file):
                return f"the newest whole one is --ckpt_path {other}"
    return "no other file beside it is whole, so train anew without --ckpt_path"
