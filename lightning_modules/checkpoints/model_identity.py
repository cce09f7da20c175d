"""The identity of the model that a checkpoint belongs to: base model, tokenizer and adapters."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from datamodules.tokens.tokenizer import ThinkTokenizer
from errors import UserError
from hub import model_folder
from lightning_modules.checkpoints.content import CheckpointContent
from lightning_modules.net.base_files import config_values, first_difference, weight_digests
from lightning_modules.net.lora import LoraSettings
from lightning_modules.net.quantize import Quantize


class Model(Protocol):
    """The settings of ThinkTuner that decide whether a checkpoint belongs to it."""

    name: str
    revision: str | None
    tags: Any
    new_tokens: tuple[str, ...]
    lora: LoraSettings | None
    quantize: Quantize | None
    from_scratch: bool


class ModelIdentity:
    """The identity of a model, computed once, and its comparison with checkpoints, done once for each of them."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._values: dict[str, Any] | None = None
        self._checked: dict[str, Any] | None = None  # the identity in the last checkpoint that belongs to the model

    def values(self) -> dict[str, Any]:
        """Return all values of the identity. This downloads the base's weights if they are on the hub."""
        if self._values is None:
            weights = {} if self._model.from_scratch else {"weights": weight_digests(self._folder(weights=True))}
            self._values = self._quick() | weights | {"quantize": self._model.quantize}
        return self._values

    def check(self, content: CheckpointContent, resumes: bool = False, setting: str = "--ckpt_path") -> None:
        """Raise UserError with the first difference to the model of a checkpoint, which `setting` gave.

        A fit that `resumes` must quantize the base as before; other commands may put adapters of a 4-bit base on the
        full base.
        """
        if content.identity == self._checked:
            return
        quantize = {"quantize": self._model.quantize} if resumes else {}
        check_settings(content.identity, content.base, self._quick() | quantize, setting)
        if not self._model.from_scratch:  # last, because the weights may have to be downloaded
            check_weights(content.identity, content.base, self.values()["weights"])
        self._checked = content.identity

    def check_base(self, saved: Mapping[str, Any], base: str, setting: str) -> None:
        """Raise UserError with the first difference of base and tokens alone; `saved` is an identity without LoRA."""
        check_settings(saved, base, {key: value for key, value in self._quick().items() if key in saved}, setting)
        check_weights(saved, base, self.values()["weights"])

    def _folder(self, weights: bool = False) -> Path:
        return model_folder(self._model.name, self._model.revision, weights=weights)

    def _quick(self) -> dict[str, Any]:
        model = self._model
        tokenizer = ThinkTokenizer.load(model.name, model.revision, model.tags, model.new_tokens)
        return settings_identity(self._folder(), tokenizer, model.lora)


def settings_identity(folder: Path, tokenizer: ThinkTokenizer, lora: LoraSettings | None) -> dict[str, Any]:
    """Return the identity without weights: the base's config, tokens and adapters."""
    known = {"config": config_values(folder), "tokens": tokenizer.fingerprint}
    return known | (lora.identity() if lora else {"lora.rank": None})


def check_settings(
    saved: Mapping[str, Any], base: str, current: Mapping[str, Any], setting: str = "--ckpt_path"
) -> None:
    """Raise UserError with the first difference between a checkpoint's model, called `base`, and the current one.

    setting: the one that gave the checkpoint, for messages
    """
    for key in [*current, *(key for key in saved if key.startswith("lora.") and key not in current)]:
        value, there = current.get(key), saved.get(key)
        if there == value:
            continue
        if key.startswith("lora.") or key == "quantize":
            fix = f"set model.{key} to {there}"
            if there is None:
                group = f"model.{key.partition('.')[0]}"
                fix = f"remove model.{key}" if key.startswith("lora.peft.") else f"set {group} null"
            problem = f"differs from the checkpoint's, {there}"
            raise UserError(f"model.{key}", value, problem, f"{fix}, or train anew without {setting}")
        if key != "config":
            raise _another_base(base, "has another tokenizer")
        if found := first_difference(value or {}, there or {}):
            raise _another_base(base, f"has {found[0]} {found[1]}, the checkpoint's model {found[2]}")


def check_weights(saved: Mapping[str, Any], base: str, weights: dict[str, str]) -> None:
    """Raise UserError if a file of the base's weights differs from that in the checkpoint; both are digests by name."""
    there = saved.get("weights", {})
    if weights.keys() != there.keys():
        raise _another_base(base, f"has its weights in {', '.join(weights)}, the checkpoint's in {', '.join(there)}")
    if changed := next((name for name in weights if weights[name] != there[name]), None):
        raise _another_base(base, f"has other weights in {changed}")


def _another_base(base: str, difference: str) -> UserError:
    problem = f"the model given is not the one the checkpoint was trained on: it {difference}"
    return UserError("model.name", None, problem, f"set model.name to {base}, with its files as they were")
