"""The facts in a model card."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from datamodules.text.tags import Tags
from hub import local_folder
from lightning_modules.checkpoints.content import Parent
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
    """An evaluation of the exported checkpoint by `evaluate`."""

    asked: Asked
    figures: Mapping[str, Any]  # as report_figures returns them
    decoding: Mapping[str, Any]
    samples: int = 1

    @property
    def how(self) -> str:
        """How the questions were asked, in words."""
        temperature, most = float(self.decoding["temperature"]), self.decoding["max_new_tokens"]
        sampling = f"temperature {temperature:g}, top_p {self.decoding['top_p']:g}" if temperature else "greedy"
        samples = f", {self.samples} answers to each question" if self.samples > 1 else ""
        given = {name: (self.decoding.get(name, plain), plain) for name, plain in asdict(ThinkingSettings()).items()}
        steering = [f"{name} {value}" for name, (value, plain) in given.items() if value != plain]
        return f"{sampling}{samples}, at most {most} tokens" + "".join(f", {one}" for one in steering)


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

    @property
    def hub_base(self) -> str | None:
        """The id of the base on the hub; None for a folder, which only the machine of the training has."""
        return None if local_folder(self.base) else self.base
