"""The mix of sources: the settings of each source, and a source with its processing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from datamodules.layouts.columns import Candidates, Columns
from datamodules.rows.filters import Filters
from datamodules.rows.sampling import Order
from datamodules.rows.sources import BUILT_IN, Source, open_source
from datamodules.text.example import Turns
from datamodules.text.malformed import Dial, MalformedPolicy
from datamodules.text.segments import Template
from datamodules.text.steps import StepSettings
from datamodules.text.tags import Tags
from datamodules.tokens.process import Overlong, ProcessingConfig
from errors import UserError


@dataclass
class MixedSource:
    """One source of `data.mix`. A field that is null takes the value of the same setting in `data`."""

    name: str
    """A source, as in data.source."""
    weight: float | None = None
    """Number of kept rows relative to the other sources: weight 4 keeps four rows for each row of weight 1. If every
    weight is null, each source gives all its rows."""
    revision: str | None = None
    """Commit of the hub data set; null takes the newest."""
    split: str = "train"
    """Split of the hub data set or of the folder."""
    config: str | None = None
    """Config of the hub data set or of the folder."""
    columns: Columns | None = None
    """Names of its columns."""
    candidates: Candidates | None = None
    """Its columns of several responses."""
    tags: Tags | None = None
    """Tags around its thoughts."""
    malformed: Dial | None = None
    """Action for its malformed responses: strict, repair, last_close or keep."""
    malformed_overrides: dict[str, str] | None = None
    """Actions for single shapes of its malformed responses."""
    filters: dict[str, Any] | None = None
    """Conditions that its rows have to meet."""

    def with_defaults(
        self,
        columns: Columns,
        candidates: Candidates,
        tags: Tags,
        malformed: Dial,
        malformed_overrides: dict[str, str] | None,
        filters: dict[str, Any] | None,
    ) -> "MixedSource":
        """Return this source with the settings of `data` in place of null."""
        return replace(
            self,
            columns=self.columns or columns,
            candidates=self.candidates or candidates,
            tags=self.tags or tags,
            malformed=self.malformed or malformed,
            malformed_overrides=malformed_overrides if self.malformed_overrides is None else self.malformed_overrides,
            filters=filters if self.filters is None else self.filters,
        )

    def open(self, heldout_ratio: float, seed: int, order: Order) -> Source:
        """Return the source. Raises UserError if it does not exist."""
        return open_source(self.name, self.revision, self.split, heldout_ratio, seed, self.config, order)

    def processing(
        self, template: Template, steps: StepSettings, max_length: int, overlong: Overlong, turns: Turns = "last"
    ) -> ProcessingConfig:
        """Return the processing of its rows. Raises UserError for wrong overrides of malformed shapes."""
        policy = MalformedPolicy.of(self.malformed or "repair", self.malformed_overrides)
        read = self.columns or Columns(), self.candidates or Candidates()
        tags, filters = self.tags or Tags(), self.filters or {}
        return ProcessingConfig(template, steps, max_length, overlong, *read, tags, policy, filters, turns)


@dataclass(frozen=True)
class Part:
    """One source of a mix with its processing and its weight. Without weights, each source gives all its rows."""

    source: Source
    config: ProcessingConfig
    weight: float | None = None


def check_mix(mix: Sequence[MixedSource], wanted: Mapping[str, int | None]) -> None:
    """Raise UserError for impossible settings of a source, and for numbers of rows that the sources cannot give."""
    if not mix:
        raise UserError("data.mix", "[]", "names no source", "give one or more, or null for data.source alone")
    if len({one.weight is None for one in mix}) > 1:
        raise UserError("data.mix", None, "some sources have a weight and some have none", "give all a weight, or none")
    for split, count in wanted.items():
        if count is None and any(one.name in BUILT_IN for one in mix):
            fix = "give the number of rows"
            raise UserError(f"data.{split}_rows", "null", "asks for all rows of an endless source", fix)
    for one in mix:
        (one.tags or Tags()).check("data.source_tags")
        (one.columns or Columns()).check()
        (one.candidates or Candidates()).check()
        Filters(one.filters)
        MalformedPolicy.of(one.malformed or "repair", one.malformed_overrides)
