"""The recipes to compare: the literal recipe, the strong recipe, and literal with one knob of strong at a time.

The strong recipe is configs/recipe/strong.yaml. A knob is a group of its settings.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from errors import UserError
from hub import CHECKOUT, local_folder

CONFIGS = CHECKOUT / "configs"
LITERAL, STRONG = CONFIGS / "multi_think.yaml", CONFIGS / "recipe" / "strong.yaml"
EMBEDDED = "assets/tiny-qwen"

RATE, LENGTH = "model.optim.lr", "data.max_length"
KNOBS = {
    "rate": (RATE,),
    "layers": ("model.lora.target_modules",),
    "rank": ("model.lora.rank", "model.lora.alpha", "model.lora.use_rslora"),
    "schedule": ("model.optim.lr_scheduler_type", "model.optim.warmup_ratio", "model.optim.min_lr_ratio"),
    "length": (LENGTH,),
    "batch": ("data.batch_size",),
}
# Equal for all recipes here: the first changes only memory and time, the second is a setting of the measurement
COMMON = ("model.gradient_checkpointing", "model.evaluation.decoding.max_new_tokens")


@dataclass(frozen=True)
class Recipe:
    """One column of the comparison. `settings` are added to its configs, by dotted name."""

    name: str
    configs: tuple[Path, ...] = (LITERAL,)
    settings: Mapping[str, Any] = field(default_factory=dict)
    long: bool = False  # train on rows of up to Scale.long tokens, else of up to Scale.short

    @property
    def slug(self) -> str:
        return self.name.replace(" ", "-").replace("+-", "")


def _with_help(text: str) -> Any:
    return field(metadata={"help": text})


@dataclass(frozen=True)
class Scale:
    """The amount of training and measuring, equal for all recipes."""

    short: int = _with_help("most tokens of a training row without the length knob")
    long: int = _with_help("most tokens of a training row with the length knob, and of a validation row")
    accumulate: int = _with_help("micro-batches of an optimizer step")
    steps: int = _with_help("optimizer steps")
    validations: int = _with_help("evenly over the steps, and one more before the first step")
    val_rows: int = _with_help("validation rows")
    answered: int = _with_help("validation rows answered by generation")
    max_new_tokens: int = _with_help("most tokens of such an answer")
    rate_factor: float = _with_help("literal and strong also run with their learning rates times this (1: they do not)")

    def check(self) -> None:
        for name, value in vars(self).items():
            if value <= 0:
                raise UserError(f"--{name.replace('_', '-')}", value, "is not above 0", "give a number above 0")
        if self.short >= self.long:
            problem = "is not above --short, so the length knob changes nothing"
            raise UserError("--long", self.long, problem, f"give more than --short, {self.short}")
        if self.steps % self.validations:
            problem = "is not a multiple of --validations"
            raise UserError("--steps", self.steps, problem, f"give a multiple of --validations, {self.validations}")


def is_embedded(base: str) -> bool:
    return local_folder(base) == CHECKOUT / EMBEDDED


def default_scale(base: str) -> Scale:
    """Return the recipe's own lengths and rows per step; for the embedded model a few minutes' work for a CPU core.

    The embedded model has 640 tokens, and needs three of them for one token of Qwen's: about one real row in ten is
    short, four in ten are long. The rate factor makes the strong recipe's rate of 1e-4 the demo's, 3e-3.
    """
    if is_embedded(base):
        return Scale(1280, 1792, 1, 18, 3, 12, 4, 96, 30.0)
    short, long = (int(flat(config)[LENGTH]) for config in (LITERAL, STRONG))
    return Scale(short, long, 16, 60, 6, 64, 32, 1024, 1.0)


def recipes(rate_factor: float) -> list[Recipe]:
    """Return literal, literal with one knob at a time, strong, and both with other rates.

    Raise UserError for a setting of the strong recipe that belongs to no knob: the table would not show its effect.
    """
    literal, strong = flat(LITERAL), flat(STRONG)
    known = {key for keys in KNOBS.values() for key in keys}
    if unknown := sorted(set(strong) - known - set(COMMON)):
        raise UserError(
            str(STRONG.name), unknown[0], "belongs to no knob of this benchmark", "add it to KNOBS in recipes.py"
        )
    found = [Recipe("literal")]
    for name, keys in KNOBS.items():
        settings = {key: strong[key] for key in keys if key != LENGTH}  # the rows are chosen by their length instead
        found.append(Recipe(f"+ {name}", settings=settings, long=LENGTH in keys))
    found.append(Recipe("strong", (LITERAL, STRONG), long=True))
    if rate_factor != 1:
        for recipe, rate in ((found[0], literal[RATE]), (found[-1], strong[RATE])):
            settings = {RATE: float(f"{float(rate) * rate_factor:.3g}")}
            found.append(Recipe(f"{recipe.name} x{rate_factor:g}", recipe.configs, settings, recipe.long))
    return found


def flat(config: Path) -> dict[str, Any]:
    """Return the settings of a config by dotted name."""
    found: dict[str, Any] = {}
    waiting = list(yaml.safe_load(config.read_text(encoding="utf-8")).items())
    while waiting:
        key, value = waiting.pop()
        if isinstance(value, dict):
            waiting += [(f"{key}.{name}", inner) for name, inner in value.items()]
        else:
            found[key] = value
    return found
