"""LoRA by peft: its settings, the adapters in a base, and starts that take something out of the base's weights.

PiSSA and OLoRA start the adapters at a part of each weight matrix, B0 A0, and leave the rest as the base: W - s B0 A0.
What is trained then means something beside that rest only. So A0 and B0 stay with the checkpoint, and whoever loads it
takes them out of the base again, instead of decomposing anew: a decomposition may come out otherwise, by a sign at
least, on another machine.
"""

import copy
import dataclasses
import logging
import math
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn

from errors import UserError, did_you_mean

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Start = dict[str, Tensor]  # A0 (r, in) and B0 (out, r), float32 on the CPU, named as in an adapter's file

KEY = "model.lora.peft"
OWN = {
    "r": "rank", "lora_alpha": "alpha", "lora_dropout": "dropout", "target_modules": "target_modules",
    "use_rslora": "use_rslora",
}  # fmt: skip
INITS = ("gaussian", "orthogonal", "pissa", "pissa_niter_4", "olora")
NEEDS_DATA = ("loftq", "eva", "corda", "lora_ga")
REFUSED = {
    **dict.fromkeys(("loftq_config", "eva_config", "corda_config", "lora_ga_config"), "is for a start that needs data"),
    **dict.fromkeys(("trainable_token_indices", "ensure_weight_tying"), "is not needed: the rows of tags are trained"),
    **dict.fromkeys(("megatron_config", "megatron_core", "runtime_config"), "is for another way of training"),
    **dict.fromkeys(("fan_in_fan_out", "use_qalora", "qalora_group_size"), "is for other kinds of layers"),
    "modules_to_save": "would train and save whole matrices; model.lora null trains all of them",
    "bias": "would train biases in the precision of the base; lora_bias adds some that are float32",
    "layer_replication": "would give the model layers that its base has not",
}

# Where bitsandbytes is installed peft imports it, and it warns of a kernel that it can do without
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


@dataclass
class LoraSettings:
    """Low-rank adapters (arXiv 2106.09685), by peft."""

    rank: int = 8
    """Rank of the adapters."""
    alpha: float = 16.0
    """Adapters are scaled by alpha / rank, with use_rslora by alpha / sqrt(rank)."""
    dropout: float = 0.0
    """Share of an adapter's inputs that is dropped in training."""
    target_modules: list[str] | Literal["all-linear"] = field(
        default_factory=lambda: ["q_proj", "k_proj", "v_proj", "o_proj"]
    )
    """Names of the linear layers that get an adapter; all-linear for every one but the head."""
    use_rslora: bool = False
    """Scale by alpha / sqrt(rank), which lets high ranks learn (arXiv 2312.03732)."""
    peft: dict[str, Any] = field(default_factory=dict)
    """Further settings of peft.LoraConfig, by its names: {use_dora: true}, {init_lora_weights: pissa}, rank_pattern,
    alpha_pattern, layers_to_transform, exclude_modules; see docs/lora.md."""

    @property
    def changes_base(self) -> bool:
        """Whether the adapters start at a part of the base's weights, which is taken out of them."""
        init = self.peft.get("init_lora_weights")
        return isinstance(init, str) and (init.startswith("pissa") or init == "olora")

    def plain(self) -> "LoraSettings":
        """The same adapters without a start of their own: of the same shapes, and nothing is decomposed."""
        return dataclasses.replace(self, peft={k: v for k, v in self.peft.items() if k != "init_lora_weights"})

    def check(self) -> None:
        """Raises UserError for values that cannot be. Not at construction: for an optional group jsonargparse takes an
        error there for "this is not the type"."""
        if self.rank < 1:
            raise UserError(
                "model.lora.rank", self.rank, "is below 1", "give 1 or more, or model.lora null to train all weights"
            )
        if not 0 <= self.dropout < 1:
            raise UserError("model.lora.dropout", self.dropout, "is not a share below 1", "give 0.0 for no dropout")
        if self.peft:
            self._check_names()
            self._check_values()

    def identity(self) -> dict[str, Any]:
        """What a checkpoint must agree with to be loaded: all but the dropout. Keys as in the config, from "lora."."""
        target = self.target_modules
        return {
            "lora.rank": self.rank,
            "lora.alpha": self.alpha,
            "lora.use_rslora": self.use_rslora,
            "lora.target_modules": sorted(target) if isinstance(target, list) else target,
            **{f"lora.peft.{name}": value for name, value in sorted(self.peft.items())},
        }

    def _check_names(self) -> None:
        from peft import LoraConfig, PeftConfig

        known = {f.name: bool(f.metadata.get("is_lora_variant")) for f in dataclasses.fields(LoraConfig)}
        refused = REFUSED | dict.fromkeys(
            (f.name for f in dataclasses.fields(PeftConfig)), "is set by this program and cannot be another"
        )
        for name in self.peft:
            key = f"{KEY}.{name}"
            if name in OWN or name in OWN.values():
                raise UserError(key, None, "has a setting of its own", f"set model.lora.{OWN.get(name, name)}")
            if name in refused:
                raise UserError(key, None, refused[name], "leave it out")
            if name not in known:
                near = did_you_mean(name, set(known) - set(refused) - set(OWN))
                fix = f"did you mean {near}?" if near else "see docs/lora.md, or peft's LoraConfig"
                raise UserError(key, None, "there is no such setting", fix)
            if known[name] and name != "use_dora":
                raise UserError(key, None, "is a variant whose checkpoints were never tried here", "leave it out")

    def _check_values(self) -> None:
        given = self.peft
        init, dora = given.get("init_lora_weights", True), given.get("use_dora", False)
        if init in NEEDS_DATA:
            problem = "needs data or a decomposition that is made before training"
            raise UserError(f"{KEY}.init_lora_weights", init, problem, f"choose from {', '.join(INITS)}")
        if init == "mica":
            problem = "freezes matrices that a checkpoint would have to hold"
            raise UserError(f"{KEY}.init_lora_weights", init, problem, f"choose from {', '.join(INITS)}")
        if not (isinstance(init, bool) or init in INITS or re.fullmatch(r"pissa_niter_\d+", str(init))):
            near = did_you_mean(str(init), INITS)
            fix = f"did you mean {near}?" if near else f"choose from true, {', '.join(INITS)}"
            raise UserError(f"{KEY}.init_lora_weights", init, "is not a start that peft knows", fix)
        if not isinstance(dora, bool):
            raise UserError(f"{KEY}.use_dora", dora, "is not a switch", "give true or false")
        for name, kind in (("rank_pattern", int), ("alpha_pattern", (int, float))):
            pattern = given.get(name, {})
            if not isinstance(pattern, dict) or not all(isinstance(v, kind) and v > 0 for v in pattern.values()):
                fix = "give numbers by layer name or regular expression: {q_proj: 16}"
                raise UserError(f"{KEY}.{name}", pattern, "does not hold numbers above 0", fix)
        if self.changes_base and given.get("target_parameters"):
            problem = "cannot start at a part of model.lora.peft.target_parameters"
            raise UserError(f"{KEY}.init_lora_weights", init, problem, "leave one of the two out")
        odd = [rank for rank in (self.rank, *given.get("rank_pattern", {}).values()) if rank % 2]
        if init == "orthogonal" and odd:
            raise UserError("model.lora.rank", odd[0], "is odd, and an orthogonal start halves it", "give an even rank")
        try:
            _config(self)
        except (TypeError, ValueError) as error:
            raise UserError(KEY, given, f"is refused by peft ({_line(error)})", "mend or leave out") from error


def add_lora(base: "PreTrainedModel", lora: LoraSettings, start: Start | None = None) -> tuple[Any, Start | None]:
    """The base with adapters, as a peft model, and what they took out of the base: None where they leave it.

    All that was there is frozen; what is new is float32 and trained. With the `start` of an earlier call nothing is
    decomposed, and the base becomes the same one again. Raises UserError for names that match no layer, and for a
    start that is not of these layers.
    """
    from peft import get_peft_model

    config = _config(lora)
    linear = {name.rsplit(".", 1)[-1] for name, module in base.named_modules() if isinstance(module, nn.Linear)}
    names = ", ".join(sorted(linear - {"lm_head"}))
    if lora.changes_base:
        # peft would take out the start, then round the adapters to the base's dtype; started below, they stay float32
        config.init_lora_weights = True
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*gradient_checkpointing.*")  # a name that changed within transformers 5
            # Settings that would do nothing, and biases that an export could not merge
            for pattern in (".*did not match any.*", ".*no modules were excluded.*", ".*has no bias.*"):
                warnings.filterwarnings("error", pattern)
            lm: Any = get_peft_model(base, config)  # adapters are float32 whatever the base is in
    except (ValueError, Warning) as error:
        if lora.peft:
            fix = f"mend it, or model.lora.target_modules; the layers are {names}"
            raise UserError(KEY, lora.peft, f"does not suit the model ({_line(error)})", fix) from error
        problem = "matches no layer of the model"
        raise UserError("model.lora.target_modules", lora.target_modules, problem, f"choose from {names}") from error
    _check_layers(lm, lora)
    ranks = dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
    shared: list[Start | None] = [None]
    if start is None and lora.changes_base and ranks > 1 and dist.get_rank() > 0:
        dist.broadcast_object_list(shared)  # one decomposition for all ranks: they may come out otherwise
        (start,) = shared
    if start is not None:
        _take_out(lm, start)
    elif lora.changes_base:
        init = lora.peft["init_lora_weights"]
        for _, layer in _layers(lm):
            layer.olora_init("default") if init == "olora" else layer.pissa_init("default", init)
        start = {name: matrix.detach().float().cpu().clone() for name, matrix in _matrices(lm)}
        if ranks > 1:
            dist.broadcast_object_list([start])
    return lm, start


def as_plain(tensors: dict[str, Tensor], settings: dict[str, Any], start: Start) -> None:
    """Turns an adapter's file and its adapter_config.json, in place, into one for the base as it was.

    W + s (B A - B0 A0) = W + s [B, -B0] [A; A0]: twice the rank, and the same scale s for every layer, so alpha times
    2, with use_rslora times sqrt(2). DoRA's magnitudes stay: the sum that they are applied to is the same.
    """
    for name, first in start.items():
        parts = (tensors[name], first) if ".lora_A." in name else (tensors[name], -first)
        tensors[name] = torch.cat(parts, dim=0 if ".lora_A." in name else 1)
    wider = math.sqrt(2) if settings["use_rslora"] else 2
    settings["r"] *= 2
    settings["lora_alpha"] *= wider
    settings["rank_pattern"] = {name: 2 * rank for name, rank in settings["rank_pattern"].items()}
    settings["alpha_pattern"] = {name: wider * alpha for name, alpha in settings["alpha_pattern"].items()}


def _config(lora: LoraSettings) -> Any:
    from peft import LoraConfig

    with warnings.catch_warnings():
        # peft's own way of making such adapters plain fails for use_rslora with patterns; as_plain does not
        warnings.filterwarnings("ignore", ".*path_initial_model_for_weight_conversion.*")
        return LoraConfig(
            task_type="CAUSAL_LM",
            r=lora.rank,
            lora_alpha=lora.alpha,
            lora_dropout=lora.dropout,
            target_modules=lora.target_modules,
            use_rslora=lora.use_rslora,
            **copy.deepcopy(lora.peft),
        )


def _layers(lm: Any) -> Iterator[tuple[str, Any]]:
    """Names and layers that have an adapter."""
    from peft.tuners.lora import LoraLayer

    for name, module in lm.get_base_model().named_modules():
        if isinstance(module, LoraLayer):
            yield name, module


def _matrices(lm: Any) -> Iterator[tuple[str, nn.Parameter]]:
    """A and B of each adapter, named as in its file."""
    for name, layer in _layers(lm):
        yield f"base_model.model.{name}.lora_A.weight", layer.lora_A["default"].weight
        yield f"base_model.model.{name}.lora_B.weight", layer.lora_B["default"].weight


def _check_layers(lm: Any, lora: LoraSettings) -> None:
    base = lm.get_base_model()
    ends = (base.get_input_embeddings(), base.get_output_embeddings())
    for name, layer in _layers(lm):
        if any(layer is end for end in ends):
            problem = f"adapts {name}, beside which the rows of the tags are trained already"
            raise UserError("model.lora.target_modules", lora.target_modules, problem, "leave it out")
        rank, most = layer.r["default"], min(layer.in_features, layer.out_features)
        if lora.changes_base and rank > most:
            problem = f"is more than {name} has for such a start, {most}"
            raise UserError("model.lora.rank", rank, problem, f"give at most {most}, or less in rank_pattern")


def _take_out(lm: Any, start: Start) -> None:
    """Sets the adapters to their start and takes it out of the base, by the arithmetic of peft: to the same bit."""
    if {name: p.shape for name, p in _matrices(lm)} != {name: p.shape for name, p in start.items()}:
        fix = "use the model settings that it was trained with"
        raise UserError("--ckpt_path", None, "the checkpoint holds the start of other adapters than this model's", fix)
    with torch.no_grad():
        for name, matrix in _matrices(lm):
            matrix.copy_(start[name])
        for _, layer in _layers(lm):
            weight, scale = layer.get_base_layer().weight, layer.scaling["default"]
            part = scale * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
            weight.data = (weight.float() - part).to(weight.dtype)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
