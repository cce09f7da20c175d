"""AdamW over the trained parameters, and the learning rate as a function of the optimizer step."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from errors import UserError


@dataclass
class OptimSettings:
    """AdamW (arXiv 1711.05101) and the schedule of its learning rate."""

    lr: float = 2e-5
    """Peak learning rate. Lower it if the loss rises or is not finite."""
    new_token_lr: float | None = None
    """Peak learning rate of the new-token embeddings (tags and model.new_tokens); null takes lr."""
    weight_decay: float = 0.0
    """Weight decay of matrices. Embeddings of new tokens, biases and norms never decay."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay rates of AdamW's running means: of the gradient, and of its square."""
    lr_scheduler_type: Literal["constant", "linear", "cosine"] = "constant"
    """Learning rate after the warm-up: constant, or falling to min_lr_ratio x lr at the last step."""
    warmup_ratio: float = 0.0
    """Part of all optimizer steps in which the learning rate rises from 0 to its peak; 0.03 is 3 percent."""
    min_lr_ratio: float = 0.0
    """Last learning rate of a linear or cosine schedule, as a part of the peak."""


def build_optimizer(
    parameters: Iterable[tuple[str, nn.Parameter]], settings: OptimSettings, fused: bool = False
) -> torch.optim.AdamW:
    """Return AdamW over the parameters that require a gradient, in three groups: matrices, vectors, new embeddings.

    `parameters` are names and tensors. `fused` updates all tensors in one kernel.
    """
    matrices: list[nn.Parameter] = []
    vectors: list[nn.Parameter] = []
    new_embeddings: list[nn.Parameter] = []
    for name, parameter in parameters:
        if parameter.requires_grad:
            is_new = name.endswith(".embeddings")
            (new_embeddings if is_new else matrices if parameter.ndim > 1 else vectors).append(parameter)
    groups = [
        {"params": matrices, "lr": settings.lr, "weight_decay": settings.weight_decay},
        {"params": vectors, "lr": settings.lr, "weight_decay": 0.0},
        {"params": new_embeddings, "lr": settings.new_token_lr or settings.lr, "weight_decay": 0.0},
    ]
    given = [group for group in groups if group["params"]]
    return torch.optim.AdamW(given, lr=settings.lr, betas=settings.betas, fused=fused or None)


def settings_of(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """Return the settings of each parameter group: learning rate, weight decay and the like."""
    return [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]


def restore_settings(schedule: LambdaLR, groups: list[dict[str, Any]]) -> None:
    """Replace the settings that a checkpoint brought to an optimizer and its schedule by those of `groups`, in place.

    `groups` comes from settings_of, taken when both were new. Moments and the position in the schedule stay as in the
    checkpoint.
    """
    for group, own in zip(schedule.optimizer.param_groups, groups, strict=True):
        group.update(own)
    schedule.base_lrs = [own["initial_lr"] for own in groups]
    factors = [factor(schedule.last_epoch) for factor in schedule.lr_lambdas]
    for group, base, factor in zip(schedule.optimizer.param_groups, schedule.base_lrs, factors, strict=True):
        group["lr"] = base * factor


def planned_steps(trainer: Any, extra_steps: int, settings: OptimSettings) -> int:
    """Return the optimizer steps of a whole fit, with `extra_steps` that are in no epoch; -1 or less if it has no end.

    Raises UserError for a schedule that needs an end.
    """
    epochs, steps = trainer.max_epochs or -1, trainer.max_steps
    if epochs < 0 and steps < 0 and (settings.lr_scheduler_type != "constant" or settings.warmup_ratio):
        key, kind, fix = "model.optim.lr_scheduler_type", settings.lr_scheduler_type, "set trainer.max_epochs"
        raise UserError(key, kind, "needs to know where training ends", f"{fix} or trainer.max_steps")
    if epochs <= 0:
        return int(steps)
    planned = int(extra_steps + epochs * trainer.datamodule.steps_per_epoch)
    return min(planned, steps) if steps > 0 else planned


def lr_factor(step: int, total: int, settings: OptimSettings) -> float:
    """Return the learning rate of optimizer step `step` (from 0) of `total`, as a part of the peak.

    The last step, total - 1, of a linear or cosine schedule has exactly `min_lr_ratio`.
    """
    warmup = math.ceil(settings.warmup_ratio * total)
    falls = settings.lr_scheduler_type != "constant"
    if falls and step >= total - 1:
        return settings.min_lr_ratio
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if not falls:
        return 1.0
    done = (step - warmup) / (total - 1 - warmup)
    remaining = 1 - done if settings.lr_scheduler_type == "linear" else 0.5 * (1 + math.cos(math.pi * done))
    return settings.min_lr_ratio + (1 - settings.min_lr_ratio) * remaining
