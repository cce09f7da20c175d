"""What this program adds to a checkpoint of Lightning: the whole content at one glance, with a format number.

Its key is CONTENT_KEY, beside Lightning's keys state_dict, optimizer_states, lr_schedulers, callbacks and loops.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from errors import UserError
from lightning_modules.checkpoints.resume_position import ResumePosition
from lightning_modules.net.lora import LoraStart
from lightning_modules.run.environment import program_version

CONTENT_KEY = "thinkwright"
FORMAT = 3  # raise it if a field is added, removed or changes its meaning


@dataclass(frozen=True)
class Parent:
    """A file whose weights a run began with."""

    path: str  # absolute: a checkpoint, or the folder of an adapter; it need not exist any more
    step: int | None  # optimizer steps of the run that wrote it; None for an adapter of another program
    digest: str  # of the weights: start_tensors.py

    def described(self) -> str:
        """Return the path and the step, as a part of a sentence."""
        return f"the weights of {self.path}" + ("" if self.step is None else f", of optimizer step {self.step:,}")

    def name(self) -> str:
        """Return the end of the path, without the folders of this machine: `demo/2026-11-27_09-30-00/best.ckpt`."""
        parts = [part for part in Path(self.path).parts if part != "checkpoints"]
        return "/".join(parts[-3:])


@dataclass(frozen=True)
class CheckpointContent:
    """Our part of a checkpoint. All values are plain Python or tensors, so that torch reads them with weights_only."""

    base: str  # model.name: the base model is named, not copied
    revision: str | None  # model.revision
    identity: dict[str, Any]  # of base model, tokenizer and adapters: model_identity.py
    seed: int | None  # of dropout; None before a fit
    train_loss: list[dict[str, Tensor]]  # sums of train/loss since it was last logged, one dict per rank
    skipped_steps: int  # optimizer steps that a gradient scaler skipped
    lora_start: LoraStart | None  # initial adapters, if they were subtracted from the base (PiSSA, OLoRA)
    resume_position: ResumePosition | None = None  # None outside a fit
    data: dict[str, Any] | None = None  # identity of the examples; None outside a fit
    # The file that the run's weights came from, then the one before it, and so on; empty for a run that began new
    parents: list[Parent] = field(default_factory=list)
    format: int = FORMAT
    version: str = field(default_factory=program_version)  # of the program that wrote it

    def at(self, position: ResumePosition, data: dict[str, Any]) -> "CheckpointContent":
        """Return the content with a position in a fit and the identity of its examples."""
        return replace(self, resume_position=position, data=data)

    def to_dict(self) -> dict[str, Any]:
        content = {one.name: getattr(self, one.name) for one in fields(self)}
        position = self.resume_position.to_dict() if self.resume_position else None
        return content | {"resume_position": position, "parents": [asdict(one) for one in self.parents]}

    @classmethod
    def of(
        cls, checkpoint: Mapping[str, Any], path: Path | None = None, setting: str = "--ckpt_path"
    ) -> "CheckpointContent":
        """Return our part of a checkpoint; `path`, and the `setting` that gave it, are for messages.

        Raise UserError if the checkpoint has no such part, has a newer or an older format, or lacks a field.
        """
        saved = checkpoint.get(CONTENT_KEY) if isinstance(checkpoint, Mapping) else None
        if not isinstance(saved, dict):
            fix = "give a file from a run's checkpoints folder"
            raise _unreadable(setting, path, "was not written by this program", fix)
        found, writer = saved.get("format", 0), saved.get("version", "unknown")
        if found != FORMAT:
            problem = f"has format {found}, written by version {writer}; version {program_version()} reads {FORMAT}"
            newer = isinstance(found, int) and found > FORMAT
            way = "update the program" if newer else "resume with the version that wrote it"
            raise _unreadable(setting, path, problem, f"{way}, or train anew without {setting}")
        try:
            content = {one.name: saved[one.name] for one in fields(cls)}
            if (position := content["resume_position"]) is not None:
                content["resume_position"] = ResumePosition.from_dict(position)
            content["parents"] = [Parent(**one) for one in content["parents"]]
        except (KeyError, TypeError) as error:
            problem = f"lacks a field of format {FORMAT} ({error})"
            raise _unreadable(setting, path, problem, f"train anew without {setting}") from error
        return cls(**content)


def _unreadable(setting: str, path: Path | None, problem: str, fix: str) -> UserError:
    return UserError(setting, path, problem, fix)
