"""LoRA by peft: the settings, the adapters in a base, and initializations that change the base's weights.

PiSSA and OLoRA initialize the adapters with a part B0 A0 of each weight matrix W. The base becomes W - s B0 A0, and
trained adapters are valid only with this base. So a checkpoint keeps A0 and B0, and loading it subtracts them from the
base again. A second decomposition would not do: it may differ on another machine, at least by a sign.
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

from errors import UserError, suggest
from lightning_modules.internals import peft_internals

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LoraStart = dict[str, Tensor]  # A0 (r, in) and B0 (out, r), float32 on the CPU, named as in an adapter's file

PEFT_KEY = "model.lora.peft"
HIGHEST = 2**16  # rank or alpha in a pattern
OWN_SETTINGS = {
    "r": "rank", "lora_alpha": "alpha", "lora_dropout": "dropout", "target_modules": "target_modules",
    "use_rslora": "use_rslora",
}  # fmt: skip
INITS = ("gaussian", "orthogonal", "pissa", "pissa_niter_4", "olora")
NEEDS_DATA = ("loftq", "eva", "corda", "lora_ga")
REFUSED = {
    **dict.fromkeys(("loftq_config", "eva_config", "corda_config", "lora_ga_config"), "initializes from data"),
    **dict.fromkeys(("trainable_token_indices", "ensure_weight_tying"), "is not needed: new tokens are trained"),
    **dict.fromkeys(("megatron_config", "megatron_core", "runtime_config"), "is for another kind of training"),
    **dict.fromkeys(("fan_in_fan_out", "use_qalora", "qalora_group_size"), "is for other kinds of layers"),
    "modules_to_save": "would train and save whole matrices; model.lora null trains all weights",
    "bias": "would train biases in the base's dtype; lora_bias adds biases in float32",
    "layer_replication": "would add layers that the base does not have",
}

# peft imports bitsandbytes if it is installed, which then warns about an optional kernel
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


@dataclass
class LoraSettings:
    """Low-rank adapters on a frozen base (arXiv 2106.09685), by peft."""

    rank: int = 8
    """Rank of each adapter. Default 8. A higher rank learns more and takes more memory; 8 to 64 is usual."""
    alpha: float = 16.0
    """Scale of the adapters: their output is multiplied by alpha / rank. Default 16; twice the rank is usual."""
    dropout: float = 0.0
    """Probability of dropout on the inputs of adapters, from 0 to below 1. Default 0, none; fused layers need 0."""
    target_modules: list[str] | Literal["all-linear"] = field(
        default_factory=lambda: ["q_proj", "k_proj", "v_proj", "o_proj"]
    )
    """Names of the linear layers that get an adapter. Default: the four projections of attention. all-linear adapts
    every linear layer but the output head, which learns more and takes more memory."""
    use_rslora: bool = False
    """Multiply by alpha / sqrt(rank) instead of alpha / rank (arXiv 2312.03732). Default false. For ranks above 64."""
    peft: dict[str, Any] = field(default_factory=dict)
    """Other settings of peft.LoraConfig, by peft's names: {use_dora: true}, {init_lora_weights: pissa}, rank_pattern,
    alpha_pattern, layers_to_transform, exclude_modules. Default: none. See docs/lora.md."""

    def __post_init__(self) -> None:
        self.peft = self.peft or {}  # null in a config means none

    @property
    def changes_base(self) -> bool:
        """Whether the adapters are initialized with a part of the base's weights, which is subtracted from the base."""
        init = self.peft.get("init_lora_weights")
        return isinstance(init, str) and (init.startswith("pissa") or init == "olora")

    def without_init(self) -> "LoraSettings":
        """Return settings for adapters of the same shapes, without init_lora_weights: nothing is decomposed."""
        return dataclasses.replace(self, peft={k: v for k, v in self.peft.items() if k != "init_lora_weights"})

    def check(self) -> None:
        """Raise UserError for settings of peft that are not allowed.

        This is not done at construction: jsonargparse would read an error there as "not this type", and try null.
        """
        if self.peft:
            self._check_names()
            self._check_values()

    def identity(self) -> dict[str, Any]:
        """Return the settings that a checkpoint must agree with: all but the dropout. Keys start with "lora."."""
        target = self.target_modules
        return {
            "lora.rank": self.rank,
            "lora.alpha": self.alpha,
            "lora.use_rslora": self.use_rslora,
            "lora.target_modules": sorted(target) if isinstance(target, list) else target,
            **{f"lora.peft.{name}": value for name, value in sorted(self.peft.items())},
        }

    def _check_names(self) -> None:
        from peft import PeftConfig

        known = peft_internals.lora_config_fields()
        refused = REFUSED | dict.fromkeys((f.name for f in dataclasses.fields(PeftConfig)), "is set by this program")
        for name in self.peft:
            key = f"{PEFT_KEY}.{name}"
            if name in OWN_SETTINGS or name in OWN_SETTINGS.values():
                raise UserError(key, None, "has a setting of its own", f"set model.lora.{OWN_SETTINGS.get(name, name)}")
            if name in refused:
                raise UserError(key, None, refused[name], "remove it")
            if name not in known:
                allowed = set(known) - set(refused) - set(OWN_SETTINGS)
                fix = suggest(name, allowed, "see docs/lora.md, or peft's LoraConfig")
                raise UserError(key, None, "there is no such setting", fix)
            if known[name] and name != "use_dora":
                raise UserError(key, None, "is a variant that this program was not tested with", "remove it")

    def _check_values(self) -> None:
        given = self.peft
        init, dora = given.get("init_lora_weights", True), given.get("use_dora", False)
        if init in NEEDS_DATA:
            problem = "needs data or a decomposition before training"
            raise UserError(f"{PEFT_KEY}.init_lora_weights", init, problem, f"choose from {', '.join(INITS)}")
        if init == "mica":
            problem = "freezes matrices that a checkpoint does not hold"
            raise UserError(f"{PEFT_KEY}.init_lora_weights", init, problem, f"choose from {', '.join(INITS)}")
        if not (isinstance(init, bool) or init in INITS or re.fullmatch(r"pissa_niter_[1-9]\d?", str(init))):
            fix = suggest(str(init), INITS, f"choose from true, {', '.join(INITS)}")
            raise UserError(f"{PEFT_KEY}.init_lora_weights", init, "is not an initialization of peft", fix)
        if not isinstance(dora, bool):
            raise UserError(f"{PEFT_KEY}.use_dora", dora, "is not true or false", "give one of the two")
        for name, kind in (("rank_pattern", int), ("alpha_pattern", (int, float))):
            pattern = given.get(name, {})
            if not isinstance(pattern, dict) or not all(
                isinstance(v, kind) and 0 < v <= HIGHEST for v in pattern.values()
            ):
                fix = "give numbers by layer name or regular expression: {q_proj: 16}"
                raise UserError(f"{PEFT_KEY}.{name}", pattern, "does not map names to numbers above 0", fix)
        if self.changes_base and given.get("target_parameters"):
            problem = "cannot initialize model.lora.peft.target_parameters"
            raise UserError(f"{PEFT_KEY}.init_lora_weights", init, problem, "remove one of the two")
        odd_ranks = [rank for rank in (self.rank, *given.get("rank_pattern", {}).values()) if rank % 2]
        if init == "orthogonal" and odd_ranks:
            problem = "is odd, but init_lora_weights orthogonal halves it"
            raise UserError("model.lora.rank", odd_ranks[0], problem, "give an even rank")
        try:
            peft_config(self)
        except (TypeError, ValueError) as error:
            raise UserError(PEFT_KEY, given, f"is refused by peft ({_one_line(error)})", "correct it") from error


def add_lora(
    base: "PreTrainedModel", lora: LoraSettings, start: LoraStart | None = None
) -> tuple[Any, LoraStart | None]:
    """Return the base with adapters, a peft model, and A0 and B0 if they were subtracted from the base, else None.

    The base is frozen; adapters are float32 and trained. With the `start` of an earlier call nothing is decomposed, and
    the base becomes equal to the earlier one. Raises UserError for names that match no layer, and for a start that was
    made for other adapters.
    """
    peft_internals.load()
    from peft import get_peft_model

    config = peft_config(lora)
    linear = {name.rsplit(".", 1)[-1] for name, module in base.named_modules() if isinstance(module, nn.Linear)}
    names = ", ".join(sorted(linear - {"lm_head"}))
    if lora.changes_base:
        # peft would round A0 and B0 to the base's dtype; decompose_ below keeps them in float32
        config.init_lora_weights = True
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*gradient_checkpointing.*")  # renamed within transformers 5
            # Settings without effect, and biases that an export could not merge, are errors
            for pattern in (".*did not match any.*", ".*no modules were excluded.*", ".*has no bias.*"):
                warnings.filterwarnings("error", pattern)
            lm: Any = get_peft_model(base, config)  # adapters are float32 whatever the base is in
    except (ValueError, Warning) as error:
        if lora.peft:
            fix = f"correct it, or model.lora.target_modules; the layers are {names}"
            raise UserError(PEFT_KEY, lora.peft, f"does not fit the model ({_one_line(error)})", fix) from error
        problem = "matches no layer of the model"
        raise UserError("model.lora.target_modules", lora.target_modules, problem, f"choose from {names}") from error
    _check_layers(lm, lora)
    ranks = dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
    shared: list[LoraStart | None] = [None]
    if start is None and lora.changes_base and ranks > 1 and dist.get_rank() > 0:
        dist.broadcast_object_list(shared)  # ranks may decompose differently
        (start,) = shared
    if start is not None:
        _subtract(lm, start)
    elif lora.changes_base:
        init = lora.peft["init_lora_weights"]
        for _, layer in peft_internals.lora_layers(lm):
            peft_internals.decompose_(layer, init)
        start = {name: matrix.detach().float().cpu().clone() for name, matrix in _matrices(lm)}
        if ranks > 1:
            dist.broadcast_object_list([start])
    return lm, start


def convert_to_plain_lora(tensors: dict[str, Tensor], settings: dict[str, Any], start: LoraStart) -> None:
    """Convert an adapter's file and its adapter_config.json, in place, to an adapter for the unchanged base.

    W + s (B A - B0 A0) = W + s [B, -B0] [A; A0]: twice the rank with the same scale s, so alpha is multiplied by 2,
    with use_rslora by sqrt(2). DoRA's magnitudes stay: the sum that they are applied to is the same.
    """
    for name, initial in start.items():
        parts = (tensors[name], initial) if peft_internals.is_a_key(name) else (tensors[name], -initial)
        tensors[name] = torch.cat(parts, dim=0 if peft_internals.is_a_key(name) else 1)
    wider = math.sqrt(2) if settings["use_rslora"] else 2
    settings["r"] *= 2
    settings["lora_alpha"] *= wider
    settings["rank_pattern"] = {name: 2 * rank for name, rank in settings["rank_pattern"].items()}
    settings["alpha_pattern"] = {name: wider * alpha for name, alpha in settings["alpha_pattern"].items()}


def peft_config(lora: LoraSettings) -> Any:
    """Return the settings as a peft.LoraConfig. Raises TypeError or ValueError for settings that peft refuses."""
    from peft import LoraConfig

    with warnings.catch_warnings():
        # peft's own conversion to plain LoRA fails for use_rslora with patterns, so it is not used
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


def _matrices(lm: Any) -> Iterator[tuple[str, Tensor]]:
    """Yield A and B of each adapter, named as in an adapter's file."""
    for name, layer in peft_internals.lora_layers(lm):
        if parts := peft_internals.lora_parts(layer):
            yield peft_internals.lora_file_key(name, "A"), parts.a.weight
            yield peft_internals.lora_file_key(name, "B"), parts.b.weight


def _check_layers(lm: Any, lora: LoraSettings) -> None:
    base = lm.get_base_model()
    ends = (base.get_input_embeddings(), base.get_output_embeddings())
    for name, layer in peft_internals.lora_layers(lm):
        if any(layer is end for end in ends):
            problem = f"adapts {name}, where the embeddings of the tags are trained already"
            raise UserError("model.lora.target_modules", lora.target_modules, problem, "remove it")
        parts, most = peft_internals.lora_parts(layer), min(layer.in_features, layer.out_features)
        if lora.changes_base and parts is not None and parts.rank > most:
            problem = f"is above {most}, the highest rank that {lora.peft['init_lora_weights']} can give to {name}"
            raise UserError("model.lora.rank", parts.rank, problem, f"give at most {most}, or less in rank_pattern")


def _subtract(lm: Any, start: LoraStart) -> None:
    """Set the adapters to A0 and B0 and subtract them from the base, by peft's arithmetic: equal to the bit."""
    matrices = dict(_matrices(lm))
    if {name: p.shape for name, p in matrices.items()} != {name: p.shape for name, p in start.items()}:
        problem = "the checkpoint holds initial values of other adapters than this model's"
        raise UserError("--ckpt_path", None, problem, "use the model settings that it was trained with")
    with torch.no_grad():
        for name, matrix in matrices.items():
            matrix.copy_(start[name])
        for _, layer in peft_internals.lora_layers(lm):
            if parts := peft_internals.lora_parts(layer):
                weight = peft_internals.base_layer(layer).weight
                weight.data = (weight.float() - parts.scale * parts.b.weight @ parts.a.weight).to(weight.dtype)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
