"""Truncate an overlong row by dropping whole steps from the middle of its reasoning.

The first and the last step of each answer, the text around the thoughts and the end stay, and every tag keeps its
partner. Reasoning of earlier answers stays, unless it is supervised, too. Dropping steps is known to hurt training
(arXiv 2502.07374): raise data.max_length where memory allows.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from datamodules.text.segments import Role, Segment
from datamodules.text.steps import StepSettings, step_spans
from datamodules.tokens.tokenizer import Encoder

Unit = tuple[int, int, int]  # index of a segment, and (start, end) of a step in its text
SENTENCES = StepSettings(split="sentence")  # the steps of a thought that is one block


def truncate_thoughts(
    segments: Sequence[Segment], max_length: int, encoder: Encoder, whole_thoughts: bool
) -> tuple[list[Segment], np.ndarray, np.ndarray] | None:
    """Return segments of at most `max_length` tokens with their ids (T,) int32 and roles (T,) int8.

    Return None if the row is overlong even with only the first and last step of its answers. `whole_thoughts`: a step
    is a thought; otherwise it is a sentence of a thought.
    """
    units, between = _units(segments, whole_thoughts)
    # In tokens. Inside a row a step may have fewer, where it merges with its neighbours: hence the outer loop.
    sizes = [len(ids) for ids in encoder.encode([segments[i].text[start:end] for i, start, end in units])]
    dropped: set[int] = set()
    kept, (ids, roles) = list(segments), encoder.encode_rows([segments])[0]
    middle_last = sorted(between, key=lambda i: -abs(2 * i - len(units) + 1))
    while (excess := len(ids) - max_length) > 0:
        if not middle_last:
            return None
        while excess > 0 and middle_last:
            unit = middle_last.pop()
            dropped.add(unit)
            excess -= sizes[unit] + (2 if whole_thoughts else 0)  # with the two tags
        kept = _without(segments, units, dropped)
        ids, roles = encoder.encode_rows([kept])[0]
    return kept, ids, roles


def _units(segments: Sequence[Segment], whole_thoughts: bool) -> tuple[list[Unit], list[int]]:
    """All steps in order, and the indices of the steps that may be dropped. The first and the last step of an answer
    stay. A sentence extends to the beginning of the next one."""
    units: list[Unit] = []
    edges = {0}
    for i, segment in enumerate(segments):
        if segment.role == Role.PROMPT:
            edges |= {len(units) - 1, len(units)}
        if segment.role != Role.THOUGHT:
            continue
        starts = [] if whole_thoughts else [start for start, _ in step_spans(segment.text, SENTENCES)]
        cuts = [0, *starts[1:], len(segment.text)]
        units += [(i, a, b) for a, b in pairwise(cuts)]
    edges.add(len(units) - 1)
    return units, [k for k in range(len(units)) if k not in edges]


def _without(segments: Sequence[Segment], units: Sequence[Unit], dropped: set[int]) -> list[Segment]:
    """The segments without the dropped units. A thought without any text is dropped together with its tags."""
    kept: dict[int, str] = {}
    for k, (i, start, end) in enumerate(units):
        kept[i] = kept.get(i, "") + ("" if k in dropped else segments[i].text[start:end])
    gone = {i for i, text in kept.items() if not text}
    gone |= {i + d for i in gone for d in (-1, 1)}
    return [
        Segment(Role.THOUGHT, kept[i]) if i in kept else segment for i, segment in enumerate(segments) if i not in gone
    ]
