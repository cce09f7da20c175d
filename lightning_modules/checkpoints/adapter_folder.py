"""The folder of a peft LoRA adapter, as `export --adapter` or peft writes it, as a start for a fit.

An adapter that `export --adapter` wrote names the identity of its base, a digest and its parents in the metadata of its
weights. Of another adapter only the name of its base is known.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from datamodules.text.tags import Tags
from datamodules.tokens.tokenizer import ThinkTokenizer
from errors import UserError, in_line
from hub import is_hub_id, local_folder, model_folder
from lightning_modules.checkpoints.content import Parent
from lightning_modules.checkpoints.model_identity import ModelIdentity
from lightning_modules.checkpoints.start_path import SETTING
from lightning_modules.checkpoints.start_tensors import put, require_finite, weights_digest
from lightning_modules.internals import peft_internals
from lightning_modules.net.base_files import weight_digests
from lightning_modules.net.lora import OWN_SETTINGS, LoraSettings, peft_config
from lightning_modules.net.new_token_embeddings import NewTokenEmbedding, NewTokenHead
from lightning_modules.net.think_net import ThinkNet

log = logging.getLogger("thinkwright")
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
METADATA = "thinkwright"  # the key of our facts in the metadata of the weights
CHANGE_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
# Settings of peft that do not change what the matrices of an adapter mean, or that are compared in another way
NOT_COMPARED = {
    "auto_mapping", "base_model_name_or_path", "corda_config", "ensure_weight_tying", "eva_config", "exclude_modules",
    "inference_mode", "init_lora_weights", "layers_pattern", "layers_to_transform", "loftq_config", "lora_dropout",
    "lora_ga_config", "peft_version", "revision", "target_modules", "task_type", "trainable_token_indices",
}  # fmt: skip


@dataclass(frozen=True)
class AdapterFolder:
    """What an adapter's folder holds."""

    path: Path  # absolute
    settings: dict[str, Any]  # adapter_config.json
    tensors: dict[str, Tensor]  # by the names in the file
    facts: dict[str, Any]  # that export wrote: identity, base, digest, step and parents; empty for another adapter

    @property
    def parents(self) -> list[Parent]:
        """This adapter as a parent, and those before it."""
        mine = Parent(str(self.path), self.facts.get("step"), weights_digest(self.tensors))
        return [mine, *(Parent(**one) for one in self.facts.get("parents", []))]

    def check(
        self, name: str, revision: str | None, lora: LoraSettings | None, tags: Tags, new_tokens: Sequence[str],
        identity: ModelIdentity,
    ) -> None:  # fmt: skip
        """Raise UserError if the adapter is not for this base, these adapters or these tokens. No model is loaded."""
        if lora is None:
            fix = "set model.lora, with the adapter's rank and layers"
            raise UserError(SETTING, self.path, "is an adapter, and model.lora null trains all weights", fix)
        self._check_settings(lora)
        if self.facts:
            identity.check_base(self.facts["identity"], self.facts["base"], SETTING)
        else:
            self._compare_base(name, revision)
        tokenizer = ThinkTokenizer.load(name, revision, tags, new_tokens)
        self._check_tokens(list(tokenizer.new_ids), [tags.open, tags.close, *new_tokens])

    def put_into(self, net: ThinkNet) -> None:
        """Copy the tensors into the adapters and the embeddings of new tokens of a net. Raises UserError as `put`."""
        into = peft_internals.adapter_tensors(net.lm)
        embedding, head = net.causal_lm.get_input_embeddings(), net.causal_lm.get_output_embeddings()
        if self._token_ids() and isinstance(embedding, NewTokenEmbedding) and isinstance(head, NewTokenHead):
            into[peft_internals.new_embeddings_file_key("model.embed_tokens")] = embedding.embeddings
            if head.embeddings is not embedding.embeddings:
                into[peft_internals.new_embeddings_file_key("lm_head")] = head.embeddings
        put(self.tensors, into, str(self.path))

    def _token_ids(self) -> list[int]:
        """The ids of the tokens whose embeddings the adapter holds."""
        found = self.settings.get("trainable_token_indices") or []
        if isinstance(found, dict):
            found = next(iter(found.values()))
        return list(found)

    def _check_settings(self, lora: LoraSettings) -> None:
        there, here = self.settings, peft_config(lora).to_dict()
        for name, value in there.items():
            key = f"model.lora.{OWN_SETTINGS[name]}" if name in OWN_SETTINGS else f"model.lora.peft.{name}"
            ours = here.get(name)
            if name not in NOT_COMPARED and (value or None) != (ours or None):
                fix = f"set {key} to {value}" if value else f"remove {key}"
                raise UserError(key, ours, f"differs from the adapter's, {value}", f"{fix}, or remove {SETTING}")
        init, ours = str(there.get("init_lora_weights")), lora.peft.get("init_lora_weights")
        if init.startswith(CHANGE_BASE):
            problem = f"was trained on a base that {init} has changed, and this base is not"
            fix = "let peft convert it (save_pretrained with path_initial_model_for_weight_conversion)"
            raise UserError(SETTING, self.path, problem, fix)
        if lora.changes_base:
            problem = "would change the base, and an adapter is for the unchanged one"
            fix = f"remove it, or set {SETTING} to the run itself"
            raise UserError("model.lora.peft.init_lora_weights", ours, problem, fix)
        layers = {peft_internals.file_key_layer(name) for name in self.tensors} - {None}
        leaves = sorted({str(layer).rpartition(".")[2] for layer in layers})
        given = lora.target_modules
        if isinstance(given, list) and {one.rpartition(".")[2] for one in given} != {*leaves}:
            problem = f"differs from the adapter's, {', '.join(leaves)}"
            raise UserError("model.lora.target_modules", ", ".join(given), problem, "set it to the adapter's")

    def _compare_base(self, name: str, revision: str | None) -> None:
        """Compare the base that peft named; a line says if it cannot be compared."""
        named = self.settings.get("base_model_name_or_path") or "no base"
        base = str(local_folder(name) or name)
        theirs = self.settings.get("revision")
        if named == base and revision and theirs and revision != theirs:
            raise UserError("model.revision", revision, f"differs from the adapter's, {theirs}", f"set it to {theirs}")
        if named == base:
            return
        there = local_folder(named)
        if there is not None:
            same = weight_digests(there) == weight_digests(model_folder(name, revision, weights=True))
        else:
            same = not (is_hub_id(named) and is_hub_id(name))
        if not same:
            problem = f"is not the base of the adapter, {named}"
            raise UserError("model.name", name, problem, f"set it to {named}, or remove {SETTING}")
        if there is None:
            log.warning(f"warning: {SETTING}: the adapter's base, {named}, is not here to be compared with {base}")

    def _check_tokens(self, new_ids: list[int], names: Sequence[str]) -> None:
        held = self._token_ids()
        if held and held != new_ids:
            problem = f"holds embeddings of the tokens {held}, and the new tokens here are {new_ids}"
            raise UserError(SETTING, self.path, problem, "set data.tags and data.new_tokens as they were")
        if new_ids and not held:
            told = "they begin as model.new_token_init says"
            log.info(f"{SETTING}: the adapter has no embeddings of the new tokens ({in_line(names, 4)}): {told}")


def read_adapter(path: Path) -> AdapterFolder:
    """Return the content of an adapter's folder. Raise UserError if it is damaged, or holds more than LoRA trains."""
    settings = _settings(path / CONFIG)
    if settings.get("peft_type") != "LORA":
        raise UserError(SETTING, path, f"holds {settings.get('peft_type')}, not LoRA", "give a LoRA adapter")
    weights = path / WEIGHTS
    if not weights.is_file():
        raise UserError(SETTING, path, f"has no {WEIGHTS}", "save the adapter again as safetensors")
    try:
        with safe_open(weights, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
            facts = json.loads((file.metadata() or {}).get(METADATA, "{}"))
    except OSError as error:
        raise _unreadable(weights, error) from error
    except (SafetensorError, ValueError) as error:
        raise _damaged(weights, " ".join(str(error).split())[:200]) from error
    if facts and facts.get("digest") != weights_digest(tensors):
        raise _damaged(weights, "its digest differs")
    foreign = [name for name in tensors if not peft_internals.is_trained_key(name)]
    if foreign:
        problem = f"holds whole matrices, which this program does not train: {in_line(foreign, 3)}"
        raise UserError(SETTING, path, problem, "merge the adapter into its base, and set model.name to that folder")
    require_finite(tensors, str(path))
    return AdapterFolder(path, settings, tensors, facts)


def metadata(
    tensors: Mapping[str, Tensor], identity: Mapping[str, Any], base: str, step: int | None, parents: Sequence[Parent]
) -> dict[str, str]:
    """Return the metadata of an adapter's weights: what `read_adapter` finds again as facts.

    identity: of the model (model_identity.py), of which the parts of the base and of the tokens are kept
    """
    kept = {key: identity[key] for key in ("config", "tokens", "weights")}
    known = {"identity": kept, "base": base, "digest": weights_digest(tensors), "step": step}
    return {"format": "pt", METADATA: json.dumps(known | {"parents": [asdict(one) for one in parents]})}


def _settings(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except OSError as error:
        raise _unreadable(path, error) from error
    except (ValueError, RecursionError) as error:
        raise _damaged(path, str(error)) from error
    if not isinstance(found, dict):
        raise _damaged(path, "it holds no object")
    return found


def _unreadable(path: Path, error: OSError) -> UserError:
    return UserError(SETTING, path, f"cannot be read ({error.strerror or error})", "give a folder that can be read")


def _damaged(path: Path, why: str) -> UserError:
    return UserError(SETTING, path, f"is damaged ({why})", "give another copy of the adapter")
