"""AdamW over what is trained, and the learning-rate schedule as a function of the optimizer step."""

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
    """AdamW (arXiv 1711.05101) and the course of its learning rate."""

    lr: float = 2e-5
    """Peak learning rate."""
    new_token_lr: float | None = None
    """Peak learning rate of the rows of `<think>` and `</think>`; null takes lr."""
    weight_decay: float = 0.0
    """Decay of weight matrices; the rows, biases and norms never decay."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay of the running means of the gradient and of its square."""
    lr_scheduler_type: Literal["constant", "linear", "cosine"] = "constant"
    """Course after the warm-up: level, or falling to min_lr_ratio at the last step."""
    warmup_ratio: float = 0.0
    """Share of all optimizer steps over which the learning rate rises from 0."""
    min_lr_ratio: float = 0.0
    """What a linear or cosine schedule ends at, as a share of the peak."""

    def __post_init__(self) -> None:
        for name in ("lr", "new_token_lr"):
            value = getattr(self, name)
            if value is not None and not 0 < value < 1:
                raise UserError(
                    f"model.optim.{name}", value, "is not a learning rate between 0 and 1", "give 1e-4, say"
                )
        for name in ("warmup_ratio", "min_lr_ratio"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(
                    f"model.optim.{name}",
                    getattr(self, name),
                    "is not a share from 0 to 1",
                    "give 0.03 for three percent",
                )


def build_optimizer(
    parameters: Iterable[tuple[str, nn.Parameter]], settings: OptimSettings, fused: bool = False
) -> torch.optim.AdamW:
    """AdamW over the named parameters that require a gradient, in groups: matrices, vectors, think rows."""
    matrices: list[nn.Parameter] = []
    vectors: list[nn.Parameter] = []
    rows: list[nn.Parameter] = []
    for name, parameter in parameters:
        if parameter.requires_grad:
            (rows if name.endswith(".embeddings") else matrices if parameter.ndim > 1 else vectors).append(parameter)
    groups = [
        {"params": matrices, "lr": settings.lr, "weight_decay": settings.weight_decay},
        {"params": vectors, "lr": settings.lr, "weight_decay": 0.0},
        {"params": rows, "lr": settings.new_token_lr or settings.lr, "weight_decay": 0.0},
    ]
    given = [group for group in groups if group["params"]]
    return torch.optim.AdamW(given, lr=settings.lr, betas=settings.betas, fused=fused or None)


def settings_of(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """All that its groups hold but the parameters: rates, decay and the like."""
    return [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]


def restore_settings(schedule: LambdaLR, groups: list[dict[str, Any]]) -> None:
    """Undoes what loading a checkpoint did to the settings of an optimizer and its schedule.

    Moments and position stay the checkpoint's; rates, decay and the like are again those of `groups`, taken by
    `settings_of` when both were new. Where nothing was changed in between, this changes nothing.
    """
    for group, own in zip(schedule.optimizer.param_groups, groups, strict=True):
        group.update(own)
    schedule.base_lrs = [own["initial_lr"] for own in groups]
    factors = [factor(schedule.last_epoch) for factor in schedule.lr_lambdas]
    for group, base, factor in zip(schedule.optimizer.param_groups, schedule.base_lrs, factors, strict=True):
        group["lr"] = base * factor


def lr_factor(step: int, total: int, settings: OptimSettings) -> float:
    """The learning rate of optimizer step `step` (from 0) of `total`, as a share of the peak."""
    warmup = settings.warmup_ratio * total
    if step < warmup:
        return (step + 1) / (math.ceil(warmup) + 1)
    if settings.lr_scheduler_type == "constant":
        return 1.0
    done = min(1.0, (step - warmup) / max(1.0, total - warmup))
    course = 1 - done if settings.lr_scheduler_type == "linear" else 0.5 * (1 + math.cos(math.pi * done))
    return settings.min_lr_ratio + (1 - settings.min_lr_ratio) * course
