"""What a fit needs from its data module, as an interface: `lightning_modules` does not import the data module."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol


class StepSizes(Protocol):
    """How an optimizer step is divided into batches."""

    @property
    def accumulate(self) -> int:
        """Batches of a rank in an optimizer step."""

    @property
    def rows_of_a_step(self) -> tuple[object, ...]:
        """Plain values. Equal values mean that each optimizer step holds the same examples."""

    def described(self) -> str:
        """The sizes in words, for messages."""


class EpochFigures(Protocol):
    """How the epochs are divided into optimizer steps."""

    def figures(self) -> dict[str, Any]:
        """Figures for summary.json."""


class FitData(Protocol):
    """The data module of a fit."""

    stats: Any  # a dataclass: counts of the prepared examples, for summary.json
    batch_size: int
    max_length: int
    batches_done: Callable[[], int] | None  # set before a fit: batches that this rank has processed, of all epochs

    @property
    def epochs(self) -> EpochFigures | None:
        """None before setup("fit")."""

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of an epoch."""

    def sizes(self) -> StepSizes:
        """The sizes of this fit."""

    def identity(self) -> dict[str, Any]:
        """Plain values that tell these examples from others: digests, and the settings that they depend on."""

    def check_same_rows(self, saved: Mapping[str, Any]) -> None:
        """Raise UserError with the first difference if `saved`, an identity, is of other examples."""
