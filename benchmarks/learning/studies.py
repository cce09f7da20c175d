"""The studies: each compares arms, and each arm is configs/smollm2.yaml with some settings of its own.

All arms of a study train on the same number of supervised tokens, unless an arm names its own, in as many optimizer
steps as that makes, so the schedule of the learning rate ends where the training ends. The first arm is the one that
the others are compared with.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmarks.learning.rows import Choice

STEP_TOKENS = "data.tokens_per_step"
ACCUMULATE = "trainer.accumulate_grad_batches"
RATE = "model.optim.lr"
TWO_PASSES = 372_000  # over the 362 rows, as the epochs of configs/smollm2.yaml


@dataclass(frozen=True)
class Arm:
    """A way to train. `settings` are added to the config, by dotted name."""

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    rows: Choice = field(default_factory=Choice)
    tokens: int | None = None  # supervised, instead of the study's

    @property
    def slug(self) -> str:
        return "".join(c if c.isalnum() else "-" for c in self.name.lower()).strip("-")


@dataclass(frozen=True)
class Study:
    """Arms that are compared, after `tokens` supervised tokens."""

    name: str
    question: str
    arms: tuple[Arm, ...]
    tokens: int
    asks: bool = False  # whether the test questions are asked after training
    validations: int = 1  # evenly over the training

    def tokens_of(self, arm: Arm) -> int:
        return arm.tokens or self.tokens

    def steps(self, arm: Arm, step_tokens: int) -> int:
        """Return the optimizer steps of an arm; `step_tokens` are those of the config."""
        return max(1, round(self.tokens_of(arm) / int(arm.settings.get(STEP_TOKENS, step_tokens))))


def _lora(rank: int, alpha: float | None = None, **more: Any) -> dict[str, Any]:
    alpha = rank if alpha is None else alpha
    return {"model.lora.rank": rank, "model.lora.alpha": alpha} | {f"model.lora.{key}": v for key, v in more.items()}


def _rates(rate: float) -> dict[str, Any]:
    return {RATE: rate}


SETTINGS = (
    Arm("as configured"),
    *(Arm(f"rate {rate:g}", _rates(rate)) for rate in (1e-4, 3e-4, 3e-3, 6e-3)),
    Arm("constant rate", {"model.optim.lr_scheduler_type": "constant"}),
    Arm("linear to a tenth", {"model.optim.lr_scheduler_type": "linear"}),
    Arm("cosine to zero", {"model.optim.min_lr_ratio": 0.0}),
    Arm("rank 8", _lora(8)),
    Arm("rank 16", _lora(16)),
    Arm("rank 256", _lora(256)),
    Arm("rank 64, alpha 16", _lora(64, 16)),
    Arm("rank 64, alpha / rank = 1", _lora(64, 64, use_rslora="false")),
    Arm("adapters on attention", {"model.lora.target_modules": "[q_proj, k_proj, v_proj, o_proj]"}),
    Arm("all weights, rate 1e-4", {"model.lora": "null", RATE: 1e-4}),
    Arm("tags start as the mean", {"model.new_token_init": "mean"}),
    Arm("tags start at random", {"model.new_token_init": "random"}),
    Arm("tags' rate x 0.1", {"model.optim.new_token_lr": 1e-4}),
    Arm("tags' rate x 10", {"model.optim.new_token_lr": 1e-2}),
    Arm("tags weigh 4", {"model.role_weights.tag": 4.0}),
    Arm("thoughts weigh 0.3", {"model.role_weights.thought": 0.3}),
    Arm("answers weigh 4", {"model.role_weights.answer": 4.0}),
    Arm("steps of 1,024 tokens", {STEP_TOKENS: 1024}),
    Arm("steps of 4,096 tokens", {STEP_TOKENS: 4096, ACCUMULATE: 4}),
    Arm("steps of 8,192 tokens", {STEP_TOKENS: 8192, ACCUMULATE: 6}),
    Arm("weight decay 0.1", {"model.optim.weight_decay": 0.1}),
    Arm("dropout 0.1", {"model.lora.dropout": 0.1}),
    Arm("rows of at most 512", rows=Choice(512)),
    Arm("rows of at most 1,024", rows=Choice(1024)),
    Arm("4 short rows to 1 long", rows=Choice(1024, long_after=512)),
    Arm("longer than 512: thoughts cut", {"data.overlong": "truncate_thoughts"}, Choice(1024, cut=512)),
    Arm("longer than 512: end cut", {"data.overlong": "truncate"}, Choice(1024, cut=512)),
    Arm("base in float32", {"model.dtype": "float32", "trainer.precision": "32-true"}),
    Arm("base in 4 bits", {"model.quantize": "nf4"}),
)
THINKING = (
    Arm("one block", {"data.steps.split": "none"}),
    Arm("a block a sentence", {"data.steps.split": "sentence"}),
    Arm("a block a paragraph", {"data.steps.split": "paragraph"}),
    Arm("a block a marker", {"data.steps.split": "marker"}),
    Arm("a sentence, two passes", {"data.steps.split": "sentence"}, tokens=TWO_PASSES),
    Arm("a sentence, agreeing rows", {"data.steps.split": "sentence"}, Choice(agreeing=True)),
)
EPOCHS = tuple(Arm(f"{number} rows", rows=Choice(number=number)) for number in (100, 250))

PEER_STUDY = "thinking"  # TRL is compared with its first arm
STUDIES = (
    Study("settings", "Which settings matter?", SETTINGS, 30_000),
    Study("thinking", "One block, or one for each step?", THINKING, 560_000, asks=True, validations=6),
    Study("epochs", "When does it overfit?", EPOCHS, 280_000, validations=7),
)
