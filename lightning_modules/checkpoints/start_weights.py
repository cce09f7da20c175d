"""The weights that a fit begins with: those of another run, of a checkpoint file, or of an adapter's folder.

They are put into the net after it was built, so the net, the optimizer, the schedule and the rows are those of a new
run. Its checkpoints name the file that the weights came from, and the files before that one. A run that was begun this
way needs none of them any more.
"""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from errors import UserError
from lightning_modules.checkpoints.adapter_folder import AdapterFolder, read_adapter
from lightning_modules.checkpoints.checkpoint_file import read_checkpoint, require_parts
from lightning_modules.checkpoints.content import CheckpointContent, Parent
from lightning_modules.checkpoints.model_identity import ModelIdentity
from lightning_modules.checkpoints.start_path import SETTING, find_start
from lightning_modules.checkpoints.start_tensors import put, require_finite, weights_digest
from lightning_modules.net.lora import LoraSettings, LoraStart
from lightning_modules.net.quantize import Quantize
from lightning_modules.net.think_net import ThinkNet
from lightning_modules.ranks import from_all_ranks
from lightning_modules.run.folder import root_folder

log = logging.getLogger("thinkwright")


class StartedModel(Protocol):
    """The parts of ThinkTuner that decide whether weights fit it, and that they change."""

    name: str
    revision: str | None
    lora: LoraSettings | None
    quantize: Quantize | None
    lora_start: LoraStart | None
    identity: ModelIdentity
    new_tokens: tuple[str, ...]
    tags: Any

    def trained(self) -> dict[str, nn.Parameter]: ...


class StartWeights:
    """`model.start`: first `read`, before the base is loaded, then `put_into` the net. Or `go_on` with a checkpoint."""

    def __init__(self, given: str | None) -> None:
        self.given = given
        self.parents: list[Parent] = []  # the file that the weights came from, then the one before it, and so on
        self.data: dict[str, Any] | None = None  # identity of the rows that the weights were trained on, if known
        self._tensors: dict[str, Tensor] | None = None  # of a checkpoint, by the names of trained parameters
        self._adapter: AdapterFolder | None = None

    def read(self, model: StartedModel) -> None:
        """Read the weights and check that they fit the model; a second call does nothing.

        Raises UserError for a path that holds no weights, a damaged file, another base, other adapters or new tokens.
        """
        if self.given is None or self.parents:
            return
        path = find_start(self.given)
        if path.is_dir():
            self._adapter = read_adapter(path)
            self._adapter.check(model.name, model.revision, model.lora, model.tags, model.new_tokens, model.identity)
            self.parents = self._adapter.parents
        else:
            checkpoint = read_checkpoint(path, SETTING)
            require_parts(checkpoint, path, ["state_dict", "global_step"], SETTING)
            content = CheckpointContent.of(checkpoint, path, SETTING)
            model.identity.check(content, setting=SETTING)
            self._tensors, self.data = checkpoint["state_dict"], content.data
            model.lora_start = content.lora_start
            parent = Parent(str(path), checkpoint["global_step"], weights_digest(checkpoint["state_dict"]))
            self.parents = [parent, *content.parents]
            require_finite(self._tensors, str(path))
            if (then := content.identity.get("quantize")) != model.quantize:
                log.info(f"{SETTING}: the base had model.quantize {then or 'null'}, now {model.quantize or 'null'}")
        log.info(f"start: {self.parents[0].described()}; optimizer, schedule and rows are new")

    def put_into(self, model: StartedModel, net: ThinkNet) -> None:
        """Put the weights that were read into the trained tensors of a new net. Every rank must call it.

        Raises UserError for other tensors than the net's, and for ranks that read different weights.
        """
        if self._tensors is None and self._adapter is None:
            return
        path, digest = self.parents[0].path, self.parents[0].digest
        if len(set(from_all_ranks([digest]))) > 1:
            problem = "holds other weights on another rank, or was written while it was read"
            raise UserError(SETTING, path, problem, "give a file that stays as it is, the same on every machine")
        if self._adapter is not None:
            self._adapter.put_into(net)
        elif self._tensors is not None:
            put(self._tensors, model.trained(), path)
        self._tensors = self._adapter = None

    def go_on(self, parents: Sequence[Parent]) -> None:
        """Use the weights of a checkpoint, which has these parents: then nothing is read.

        Raises UserError if `model.start` names something else than what the checkpoint's run began with.
        """
        self.parents = list(parents)
        if self.given is not None and not (parents and _names(self.given, parents[0])):
            problem = "is not what the run of the checkpoint began with, and a checkpoint has weights of its own"
            raise UserError(SETTING, self.given, problem, "remove it, or train anew without --ckpt_path")
        self.given = None


def _names(given: str, parent: Parent) -> bool:
    """Whether a value of `model.start` names the file of a parent, also as the run's folder that holds it."""
    path = Path(os.path.abspath(root_folder(given, SETTING)))
    return path in (Path(parent.path), Path(parent.path).parent.parent)
