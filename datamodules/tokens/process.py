"""RawExamples -> ProcessedExamples: each one is parsed, filtered, split into steps, rendered and tokenized, or dropped.

A dropped example has a reason. The reasons are counted and shown.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from datamodules.layouts.columns import Candidates, Columns
from datamodules.layouts.conversation import RawExample
from datamodules.rows.filters import Filters
from datamodules.rows.near_duplicates import Signature
from datamodules.text.example import Example, Turns, parse_example
from datamodules.text.malformed import Fault, MalformedPolicy, MalformedResponse
from datamodules.text.segments import Role, Segment, Template, render
from datamodules.text.steps import StepSettings
from datamodules.text.tags import Tags
from datamodules.tokens.tokenizer import Encoder
from datamodules.tokens.truncation import truncate_thoughts

Overlong = Literal["drop", "truncate_thoughts", "truncate"]
OVERLONG_WARNINGS = {
    "truncate_thoughts": "warning: data.overlong truncate_thoughts deletes steps of the reasoning, which is known to "
    "hurt training (arXiv 2502.07374); raise data.max_length where memory allows",
    "truncate": "warning: data.overlong truncate cuts off the end of rows, so they teach blocks that are never closed "
    "and answers that never end",
}
# Reasons to drop a row
OVERLONG = "longer than data.max_length"
UNSUPERVISED = "no supervised token within data.max_length"
# Notes on a kept row
THOUGHTS_TRUNCATED = "middle steps dropped (data.overlong)"
END_TRUNCATED = "end dropped (data.overlong)"


@dataclass(frozen=True)
class ProcessingConfig:
    """The settings that decide the tokens of a row, except for the tokenizer."""

    template: Template
    steps: StepSettings = field(default_factory=StepSettings)
    max_length: int = 512
    overlong: Overlong = "drop"
    columns: Columns = field(default_factory=Columns)
    candidates: Candidates = field(default_factory=Candidates)
    tags: Tags = field(default_factory=Tags)  # the tags in the source
    malformed: MalformedPolicy = field(default_factory=MalformedPolicy)
    filters: dict[str, Any] = field(default_factory=dict)
    turns: Turns = "last"


def _empty(dtype: type) -> np.ndarray:
    return np.zeros(0, dtype)


@dataclass
class ProcessedExample:
    """The result of processing one row. Its texts are the texts that the model sees."""

    row_id: str
    group: str = "all"
    raw: RawExample | None = None  # this and the three texts are filled only on request
    instruction: str = ""
    thoughts: list[str] = field(default_factory=list)  # one for each think block, after splitting into steps
    answer: str = ""
    passages: list[tuple[str, str]] = field(default_factory=list)  # ("thought" or "answer", text), in their order
    notes: tuple[str, ...] = ()  # malformed shapes and truncation, like "no opening tag (repaired)"
    ids: np.ndarray = field(default_factory=lambda: _empty(np.int32))  # (T,) int32; empty if dropped before tokenizing
    roles: np.ndarray = field(default_factory=lambda: _empty(np.int8))  # (T,) int8, values of segments.Role
    length: int = 0  # tokens of the whole row, before truncation; 0 if dropped before tokenizing
    closes_at: int = 0  # tokens up to and with the last closing tag, before truncation; 0 without a think block
    steps: int = 0  # think blocks, before truncation
    supervised: int = 0  # tokens of `ids` with another role than PROMPT
    signature: Signature | None = None  # of the instruction, for near_duplicates.DedupIndex
    faults: tuple[Fault, ...] = ()  # every reason to drop the row, and its place in the response; empty if it is kept

    @property
    def reasons(self) -> list[str]:
        """Every reason to drop the row, each once."""
        return list(dict.fromkeys(fault.reason for fault in self.faults))

    @property
    def reason(self) -> str | None:
        """The reasons to drop the row in one text; None if it is kept."""
        return "; ".join(self.reasons) or None

    def drop(self, reason: str | None) -> None:
        """Add a reason to drop the row, if it is not None."""
        self.faults += (Fault(reason),) if reason else ()

    def tokenized(self, ids: np.ndarray, roles: np.ndarray) -> None:
        """Store the ids (T,) and roles (T,) of the whole row, and its sizes."""
        self.ids, self.roles, self.length = ids, roles, len(ids)
        closes = np.flatnonzero(roles == Role.TAG_CLOSE)
        self.steps, self.closes_at = len(closes), int(closes[-1]) + 1 if len(closes) else 0

    def take_texts(self, segments: Sequence[Segment]) -> None:
        self.thoughts = [segment.text for segment in segments if segment.role == Role.THOUGHT]
        told = Role.THOUGHT, Role.ANSWER
        self.passages = [(one.role.name.lower(), one.text) for one in segments if one.role in told]
        self.answer = segments[-2].text if segments[-2].role == Role.ANSWER else ""


def process(
    raws: Sequence[RawExample],
    config: ProcessingConfig,
    encoder: Encoder,
    texts: bool = False,
) -> list[ProcessedExample]:
    """Return the result for each row, in order. `texts` fills the fields that training does not need."""
    filters = Filters(config.filters)
    results: list[ProcessedExample] = []
    rendered: list[tuple[ProcessedExample, list[Segment]]] = []
    for raw in raws:
        result = ProcessedExample(raw.row_id, raw.group)
        results.append(result)
        if texts:
            result.raw, result.instruction = raw, str(raw.instruction or "")
        try:
            example = parse_example(raw, config.tags, config.malformed, config.turns)
            result.notes = (*example.notes, *_notes_on_tokens(example, encoder))
            result.drop(filters.of_row(raw.row))
            if not result.faults or texts:
                segments = render(example, config.template, config.steps, config.turns)
        except MalformedResponse as malformed:
            result.faults = malformed.faults
            result.drop(filters.of_row(raw.row))
            continue
        if texts:
            result.take_texts(segments)
        if not result.faults:
            rendered.append((result, segments))
    encoded = encoder.encode_rows([segments for _, segments in rendered])
    for (result, segments), (ids, roles) in zip(rendered, encoded, strict=True):
        result.tokenized(ids, roles)
        result.drop(filters.of_size(result.length, result.steps))
        if result.length > config.max_length and (not result.faults or config.overlong == "drop"):
            _apply_overlong(result, segments, config, encoder, texts)
        result.supervised = int(np.count_nonzero(result.roles != Role.PROMPT))
        if not result.faults and not result.supervised:
            result.drop(UNSUPERVISED)
    return results


def _notes_on_tokens(example: Example, encoder: Encoder) -> Iterator[str]:
    """Yield a note for each token of the model that is written in a response: it stays text."""
    find = encoder.typed_pattern.findall
    passages = [passage for turn in example.history for passage in turn.passages] + [*example.passages]
    found = {name for passage in passages for name in find(passage.text)}
    for name in sorted(found):
        way = (
            "a control token of the model"
            if encoder.typed_tokens[name]
            else f"data.new_tokens: ['{name}'] makes it a token"
        )
        yield f"{name} as text ({way})"


def _apply_overlong(
    result: ProcessedExample, segments: list[Segment], config: ProcessingConfig, encoder: Encoder, texts: bool
) -> None:
    """Drop or truncate an overlong row, by `data.overlong`."""
    if config.overlong == "truncate":
        result.ids, result.roles = result.ids[: config.max_length], result.roles[: config.max_length]
        result.notes += (END_TRUNCATED,)
        return
    truncated = None
    if config.overlong == "truncate_thoughts":
        truncated = truncate_thoughts(segments, config.max_length, encoder, whole_thoughts=config.steps.split != "none")
    if truncated is None:
        result.drop(OVERLONG)
        return
    segments, result.ids, result.roles = truncated
    result.notes += (THOUGHTS_TRUNCATED,)
    if texts:
        result.take_texts(segments)
