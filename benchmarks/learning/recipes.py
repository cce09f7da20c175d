"""What is compared: the literal recipe, the strong one, and what lies between them, one knob at a time.

The strong recipe is the configs' own overlay. A knob is some of its settings, put on the literal recipe alone.
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
# The same for all recipes here: the first changes memory and time only, the second is what is measured
COMMON = ("model.gradient_checkpointing", "model.evaluation.decoding.max_new_tokens")


@dataclass(frozen=True)
class ProcessingConfig:
    """One column of the comparison; `settings` are those that it adds to its configs, by dotted name."""

    name: str
    configs: tuple[Path, ...] = (LITERAL,)
    settings: Mapping[str, Any] = field(default_factory=dict)
    long: bool = False  # trains on rows of up to Scale.long tokens, else of up to Scale.short

    @property
    def slug(self) -> str:
        return self.name.replace(" ", "-").replace("+-", "")


@dataclass(frozen=True)
class Scale:
    """How much is trained and measured; the same for all recipes."""

    short: int  # tokens of a training row without the length knob
    long: int  # and with it; no validation row is longer, either
    accumulate: int  # batches of an optimizer step
    steps: int  # optimizer steps
    validations: int  # evenly over them, and one before the first
    val_rows: int
    answered: int  # of those, by generation
    max_new_tokens: int
    rate_factor: float  # literal and strong once more with their rates times this; 1 for not

    def check(self) -> None:
        for name, value in vars(self).items():
            if value <= 0:
                raise UserError(f"--{name.replace('_', '-')}", value, "is not above 0", "give a number above 0")
        if self.short >= self.long:
            problem = "leaves the length knob nothing to do"
            raise UserError("--long", self.long, problem, f"give more than --short, {self.short}")
        if self.steps % self.validations:
            problem = "steps cannot be told evenly by the validations"
            raise UserError("--steps", self.steps, problem, f"give a multiple of --validations, {self.validations}")


def is_embedded(base: str) -> bool:
    return local_folder(base) == CHECKOUT / EMBEDDED


def default_scale(base: str) -> Scale:
    """The recipe's own lengths and rows a step; for the embedded model what a CPU core can do in some minutes.

    Its vocabulary of 640 pieces makes three tokens of one of Qwen's: about one row in ten is short, four are long.
    Rates are the demo's for a model of this size, 3e-3 where the strong recipe has 1e-4.
    """
    if is_embedded(base):
        return Scale(1280, 1792, 1, 18, 3, 12, 4, 96, 30.0)
    short, long = (int(flat(config)[LENGTH]) for config in (LITERAL, STRONG))
    return Scale(short, long, 16, 60, 6, 64, 32, 1024, 1.0)


def recipes(rate_factor: float) -> list[ProcessingConfig]:
    """Literal first, then one knob at a time, strong, and both with other rates. Raises UserError for a setting of the
    strong recipe that is no knob: the table would not say what it does."""
    literal, strong = flat(LITERAL), flat(STRONG)
    known = {key for keys in KNOBS.values() for key in keys}
    if unknown := sorted(set(strong) - known - set(COMMON)):
        raise UserError(str(STRONG.name), unknown[0], "is no knob of this benchmark", "add it to KNOBS in recipes.py")
    found = [ProcessingConfig("literal")]
    for name, keys in KNOBS.items():
        settings = {key: strong[key] for key in keys if key != LENGTH}  # the length is that of the rows
        found.append(ProcessingConfig(f"+ {name}", settings=settings, long=LENGTH in keys))
    found.append(ProcessingConfig("strong", (LITERAL, STRONG), long=True))
    if rate_factor != 1:
        for recipe, rate in ((found[0], literal[RATE]), (found[-1], strong[RATE])):
            settings = {RATE: float(f"{float(rate) * rate_factor:.3g}")}
            found.append(ProcessingConfig(f"{recipe.name} x{rate_factor:g}", recipe.configs, settings, recipe.long))
    return found


def flat(config: Path) -> dict[str, Any]:
    """A config's settings by dotted name."""
    found: dict[str, Any] = {}
    waiting = list(yaml.safe_load(config.read_text(encoding="utf-8")).items())
    while waiting:
        key, value = waiting.pop()
        if isinstance(value, dict):
            waiting += [(f"{key}.{name}", inner) for name, inner in value.items()]
        else:
            found[key] = value
    return found
