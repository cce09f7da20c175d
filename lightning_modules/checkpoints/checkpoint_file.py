"""Checkpoint files: the one writer and the one reader.

A file is the output of torch.save, followed by `xxh3:` and the digest of that output; torch.load ignores the end. A
write is atomic: a kill at any moment leaves the old or the new file whole. Neither a write nor a read holds a second
copy of the tensors: they are written one after another, and read through a memory map that the ranks of a host share.
"""

import pickle
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

import torch
import xxhash
from lightning.pytorch.plugins.io import CheckpointIO

from disk import disk_errors, writing
from errors import UserError
from lightning_modules.checkpoints.content import CheckpointContent

CHECKSUM_MARK = b"xxh3:"
CHECKSUM_BYTES = len(CHECKSUM_MARK) + xxhash.xxh3_128().digest_size
CHUNK = 2**20  # bytes hashed at once
GIVE = "give a file from a run's checkpoints folder"
PARTS: dict[str, type] = {
    "state_dict": dict, "loops": dict, "callbacks": dict, "optimizer_states": list, "lr_schedulers": list,
    "pytorch-lightning_version": str, "epoch": int, "global_step": int,
}  # fmt: skip


class _Hashed:
    """A file that only torch.save writes to; it keeps the digest of what was written."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.digest = file, xxhash.xxh3_128()
        self.error: OSError | None = None  # of the disk; torch.save hides it behind an error of its own

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        try:
            return self.file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self.file.flush()


def write_checkpoint(checkpoint: dict[str, Any], path: Path) -> None:
    """Write a checkpoint beside its place, flush it to the disk, and rename it. Raises UserError if the disk cannot."""
    with disk_errors("run.root", path), writing(path) as file:
        hashed = _Hashed(file)
        try:
            torch.save(checkpoint, hashed)  # type: ignore[arg-type]  # it calls write and flush only
        except RuntimeError as error:
            raise hashed.error or error from error
        file.write(CHECKSUM_MARK + hashed.digest.digest())


def read_checkpoint(path: Path, setting: str = "--ckpt_path") -> dict[str, Any]:
    """Return a checkpoint, on the CPU. Raise UserError if it is missing, damaged, or not readable by this version.

    setting: the one that gave the path, for messages
    """
    if not path.is_file():
        raise UserError(setting, path, "does not exist", GIVE)
    if not _has_right_checksum(path):
        problem = "is damaged or was not written by this program"
        raise UserError(setting, path, problem, _newest_whole_beside(path, setting))
    try:
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:  # a pickle with other objects could run code
        raise UserError(setting, path, "holds more than numbers and text", GIVE) from error
    except Exception as error:  # a file of another kind with a right digest: torch raises many kinds
        raise UserError(setting, path, f"is no checkpoint ({type(error).__name__})", GIVE) from error
    CheckpointContent.of(checkpoint, path, setting)  # raises if this version cannot read it
    return checkpoint


def require_parts(checkpoint: dict[str, Any], path: Path, names: Iterable[str], setting: str = "--ckpt_path") -> None:
    """Raise UserError if a part that Lightning writes is missing or of another kind, though the digest is right."""
    for name in names:
        if not isinstance(checkpoint.get(name), PARTS[name]):
            raise UserError(setting, path, f"has no readable {name}", GIVE)


def step_of(path: Path) -> int | None:
    """Return the optimizer step of a checkpoint without reading its tensors; None if it is damaged."""
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        return int(checkpoint["global_step"])
    except Exception:  # torch raises many kinds for damaged files
        return None


class CheckedCheckpointIO(CheckpointIO):
    """Makes Lightning use the writer and the reader of this file."""

    def __init__(self) -> None:
        self._read: tuple[Path, dict[str, Any]] | None = None  # read before Lightning asks for it

    def read_ahead(self, path: Path) -> CheckpointContent:
        """Return our part of a checkpoint, and keep the whole for Lightning, which loads the same file later."""
        checkpoint = read_checkpoint(path)
        require_parts(checkpoint, path, PARTS)
        self._read = path.resolve(), checkpoint
        return CheckpointContent.of(checkpoint, path)

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        write_checkpoint(checkpoint, Path(path))

    def load_checkpoint(
        self, path: str | Path, map_location: Any | None = "cpu", weights_only: bool | None = True
    ) -> dict[str, Any]:
        read, self._read = self._read, None
        return read[1] if read and read[0] == Path(path).resolve() else read_checkpoint(Path(path))

    def remove_checkpoint(self, path: str | Path) -> None:
        Path(path).unlink(missing_ok=True)


def _has_right_checksum(path: Path) -> bool:
    """Return whether the digest at the end of a file is that of the bytes before it."""
    digest, remaining = xxhash.xxh3_128(), path.stat().st_size - CHECKSUM_BYTES
    with path.open("rb") as file:
        while remaining > 0:
            chunk = file.read(min(CHUNK, remaining))
            if not chunk:
                return False
            digest.update(chunk)
            remaining -= len(chunk)
        return file.read() == CHECKSUM_MARK + digest.digest()


def _newest_whole_beside(damaged: Path, setting: str) -> str:
    """Return the way out of a damaged file: the newest whole checkpoint in its folder."""
    option = f"--{setting.removeprefix('--')}"
    others = [other for other in damaged.parent.glob("*.ckpt") if other != damaged]
    for other in sorted(others, key=lambda path: path.stat().st_mtime, reverse=True):
        if _has_right_checksum(other):
            return f"the newest whole one is {option} {other}"
    return f"no other file beside it is whole, so train anew without {setting}"
