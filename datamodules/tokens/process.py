"""One row after another: parsed, selected, split, rendered and tokenized, or left out for a reason that has a name."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from datamodules.rows.files import Row
from datamodules.rows.filters import Filters
from datamodules.rows.near_duplicates import Signature, signature
from datamodules.text.malformed import MalformedPolicy, MalformedResponse
from datamodules.text.response import Columns, Tags, example
from datamodules.text.segments import Role, Segment, Template, render
from datamodules.text.steps import StepSettings
from datamodules.tokens.tokenizer import Encoder
from datamodules.tokens.truncation import without_middle

Overlong = Literal["drop", "truncate_thoughts", "truncate"]
CUTTING = {  # warnings of what shortens rows
    "truncate_thoughts": "warning: data.overlong truncate_thoughts deletes steps of the reasoning, which is known to "
    "hurt what is learned (arXiv 2502.07374); raise data.max_length where memory allows",
    "truncate": "warning: data.overlong truncate cuts off the end of rows, so they teach blocks that are never closed "
    "and answers that never end",
}
OVERLONG = "longer than data.max_length"
UNSUPERVISED = "no supervised token within data.max_length"
SHORTENED = "steps left out of the middle (data.overlong)"
CUT = "end cut off (data.overlong)"


@dataclass(frozen=True)
class ProcessingConfig:
    """What decides the tokens of a row, beside the row and the tokenizer."""

    template: Template
    steps: StepSettings = field(default_factory=StepSettings)
    max_length: int = 512
    overlong: Overlong = "drop"
    columns: Columns = field(default_factory=Columns)
    tags: Tags = field(default_factory=Tags)  # as the source writes them
    untidy: MalformedPolicy = field(default_factory=MalformedPolicy)
    where: dict[str, Any] = field(default_factory=dict)


def _none(dtype: type) -> np.ndarray:
    return np.zeros(0, dtype)


@dataclass
class ProcessedExample:
    """What became of one row. Its texts are those that the model sees; a row left out has those that were found."""

    row_id: str
    group: str = "all"
    raw: Row = field(default_factory=dict)  # the row as it was read; it and the texts only where they are asked for
    instruction: str = ""
    thoughts: list[str] = field(default_factory=list)  # one for each think block, after splitting into steps
    answer: str = ""
    notes: tuple[str, ...] = ()  # untidy shapes, and what was done about them: "no opening tag (repaired)"
    ids: np.ndarray = field(default_factory=lambda: _none(np.int32))  # (T,) int32; empty if left out before
    roles: np.ndarray = field(default_factory=lambda: _none(np.int8))  # (T,) int8, values of render.Role
    length: int = 0  # tokens of the whole row, before anything was cut; 0 if left out before
    closes_at: int = 0  # of those, up to and with the last closing tag; 0 without a think block
    steps: int = 0  # think blocks, before anything was cut
    supervised: int = 0  # tokens of ids whose role is not PROMPT
    signature: Signature | None = None  # of the instruction, for duplicates.DedupIndex
    reason: str | None = None  # why it was left out


def process_rows(
    rows: Sequence[tuple[int, Row]],
    recipe: ProcessingConfig,
    encoder: Encoder,
    texts: bool = False,
    compare: bool = False,
) -> list[ProcessedExample]:
    """The outcome of each (position, row), in order; `texts` fills the fields that training does not need, `compare`
    the signature."""
    selection = Filters(recipe.where)
    outcomes, segments, alive = [], [], []
    for position, row in rows:
        outcome = ProcessedExample(recipe.columns.name_of(row, position), raw=row if texts else {})
        outcomes.append(outcome)
        try:
            parsed = example(row, recipe.columns, position, recipe.tags, recipe.untidy)
        except MalformedResponse as malformed:
            outcome.reason = str(malformed)
            outcome.instruction = str(recipe.columns.texts(row)[0] or "") if texts else ""
            continue
        outcome.group, outcome.notes, outcome.reason = parsed.group, parsed.notes, selection.of_row(row)
        pieces = render(parsed, recipe.template, recipe.steps)
        if texts:
            _fill_texts(outcome, parsed.instruction, pieces)
        if outcome.reason is None:
            outcome.signature = signature(parsed.instruction) if compare else None
            segments.append(pieces)
            alive.append(outcome)
    encoded = encoder.encode_rows(segments)
    for outcome, pieces, (ids, roles) in zip(alive, segments, encoded, strict=True):
        outcome.ids, outcome.roles, outcome.length = ids, roles, len(ids)
        closes = np.flatnonzero(roles == Role.TAG_CLOSE)
        outcome.steps, outcome.closes_at = len(closes), int(closes[-1]) + 1 if len(closes) else 0
        outcome.reason = selection.of_size(outcome.length, outcome.steps)
        if outcome.reason is None and outcome.length > recipe.max_length:
            _make_fit(outcome, pieces, recipe, encoder, texts)
        outcome.supervised = int(np.count_nonzero(outcome.roles != Role.PROMPT))
        if outcome.reason is None and not outcome.supervised:
            outcome.reason = UNSUPERVISED
    return outcomes


def _make_fit(
    outcome: ProcessedExample, pieces: list[Segment], recipe: ProcessingConfig, encoder: Encoder, texts: bool
) -> None:
    """Does to a row that is too long what `data.overlong` says."""
    if recipe.overlong == "drop":
        outcome.reason = OVERLONG
    elif recipe.overlong == "truncate":
        outcome.ids, outcome.roles = outcome.ids[: recipe.max_length], outcome.roles[: recipe.max_length]
        outcome.notes += (CUT,)
    else:
        shorter = without_middle(pieces, recipe.max_length, encoder, within=recipe.steps.split == "none")
        if shorter is None:
            outcome.reason = OVERLONG
            return
        pieces, outcome.ids, outcome.roles = shorter
        outcome.notes += (SHORTENED,)
        if texts:
            _fill_texts(outcome, outcome.instruction, pieces)


def _fill_texts(outcome: ProcessedExample, instruction: str, pieces: list[Segment]) -> None:
    outcome.instruction = instruction
    outcome.thoughts = [piece.text for piece in pieces if piece.role == Role.THOUGHT]
    outcome.answer = pieces[-2].text if pieces[-2].role == Role.ANSWER else ""
