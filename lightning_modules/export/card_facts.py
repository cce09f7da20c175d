"""The facts in a model card."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from datamodules.text.tags import Tags
from hub import local_folder
from lightning_modules.checkpoints.content import Parent
from lightning_modules.evaluation.statistics import Interval
from lightning_modules.generation.decoding import DecodingSettings
from lightning_modules.generation.thinking_settings import ThinkingSettings


class Asked(NamedTuple):
    """The questions of an evaluation, as the hub names a data set."""

    id: str
    name: str
    config: str | None = None
    split: str | None = None
    revision: str | None = None


@dataclass(frozen=True)
class Evaluation:
    """An evaluation of the exported checkpoint by `evaluate`. Ratios are from 0 to 1."""

    asked: Asked
    how: str  # the questions were asked, in words
    questions: int
    right: float
    interval: Interval  # of `right`
    well_formed: float

    @classmethod
    def of(cls, asked: Asked, figures: Mapping[str, Any], decoding: Mapping[str, Any], samples: int) -> "Evaluation":
        """Return the evaluation with these figures, as report_figures returns them, and these settings of decoding.

        A setting that is not given has its default. Raises KeyError, ValueError or TypeError for figures that are not
        there or are no figures.
        """
        plain = asdict(DecodingSettings())
        given = plain | {name: value for name, value in decoding.items() if name in plain}
        temperature = float(given["temperature"])
        how = f"temperature {temperature:g}, top_p {float(given['top_p']):g}" if temperature else "greedy"
        how += f", {samples} answers to each question" if samples > 1 else ""
        how += f", at most {given['max_new_tokens']} tokens"
        for name, default in asdict(ThinkingSettings()).items():
            how += f", {name} {given[name]}" if given[name] != default else ""
        low, high = map(float, figures["interval"])
        right, well_formed = float(figures["right"]), float(figures["well_formed"])
        return cls(asked, how, int(figures["questions"]), right, Interval(low, high), well_formed)


@dataclass(frozen=True)
class Card:
    """The facts in the model card."""

    base: str
    revision: str | None
    figures: Mapping[str, float]  # of the validation after training
    checkpoint: Path
    quantize: str | None = None  # quantization of the base in training
    step: int | None = None  # optimizer steps done at the checkpoint
    parents: Sequence[Parent] = ()  # the file that the run's weights came from, then the one before it, and so on
    name: str = "thinkwright"  # of the run
    license: Mapping[str, str] = field(default_factory=dict)  # of the base, by the keys of the hub
    datasets: Sequence[str] = ()  # hub ids of the sources of rows
    languages: Sequence[str] = ()  # of these data sets
    evaluations: Sequence[Evaluation] = ()
    system: str = ""  # where a system message stands, in a sentence
    max_length: int | None = None  # tokens of the longest row in training
    tags: Tags = Tags()  # noqa: RUF009 (frozen)
    dtype: str = ""  # of the exported weights
    one_block: bool = False  # an answer has one think block, not several
    new_tokens: bool = True  # whether the training added tokens, so that an adapter is more than LoRA matrices
    repository: str | None = None  # of the hub, to which the folder is uploaded

    @property
    def hub_base(self) -> str | None:
        """The id of the base on the hub; None for a folder, which only the machine of the training has."""
        return None if local_folder(self.base) else self.base
