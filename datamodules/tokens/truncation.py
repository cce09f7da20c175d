"""Makes a row that is too long fit by leaving whole steps out of the middle of its reasoning.

The first and the last step, the text around the thoughts and the end stay, and every tag keeps its partner. Deleting
steps is known to hurt what is learned (arXiv 2502.07374): this is for who has no other rows.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from datamodules.text.segments import Role, Segment
from datamodules.text.steps import StepSettings, step_spans
from datamodules.tokens.tokenizer import Encoder

Unit = tuple[int, int, int]  # segment, and start and end of a step in its text
IN_THOUGHT = StepSettings(split="sentence")  # what a step is within a thought that is one block


def without_middle(
    segments: Sequence[Segment], max_length: int, encoder: Encoder, within: bool
) -> tuple[list[Segment], np.ndarray, np.ndarray] | None:
    """Segments of at most `max_length` tokens, with their ids (T,) int32 and roles (T,) int8; None if the first and the
    last step with all else are too long. `within`: steps are sentences of a thought, else thoughts are left out whole.
    """
    units = _units(segments, within)
    # In tokens. A step may be less where text joins up with its neighbours, so what was left out may not be enough
    sizes = [len(ids) for ids in encoder.encode([segments[i].text[start:end] for i, start, end in units])]
    left_out: set[int] = set()
    pieces, (ids, roles) = list(segments), encoder.encode_rows([segments])[0]
    from_middle = sorted(range(1, len(units) - 1), key=lambda i: -abs(2 * i - len(units) + 1))
    while (excess := len(ids) - max_length) > 0:
        if not from_middle:
            return None
        while excess > 0 and from_middle:
            unit = from_middle.pop()
            left_out.add(unit)
            excess -= sizes[unit] + (0 if within else 2)  # its tags
        pieces = _without(segments, units, left_out)
        ids, roles = encoder.encode_rows([pieces])[0]
    return pieces, ids, roles


def _units(segments: Sequence[Segment], within: bool) -> list[Unit]:
    """The steps that can be left out, in order; within a thought each goes up to where the next begins."""
    units: list[Unit] = []
    for i, segment in enumerate(segments):
        if segment.role != Role.THOUGHT:
            continue
        starts = [start for start, _ in step_spans(segment.text, IN_THOUGHT)] if within else []
        cuts = [0, *starts[1:], len(segment.text)]
        units += [(i, a, b) for a, b in pairwise(cuts)]
    return units


def _without(segments: Sequence[Segment], units: Sequence[Unit], left_out: set[int]) -> list[Segment]:
    """A thought of which nothing is left goes with both of its tags."""
    kept: dict[int, str] = {}
    for k, (i, start, end) in enumerate(units):
        kept[i] = kept.get(i, "") + ("" if k in left_out else segments[i].text[start:end])
    gone = {i for i, text in kept.items() if not text}
    gone |= {i + d for i in gone for d in (-1, 1)}
    return [
        Segment(Role.THOUGHT, kept[i]) if i in kept else segment for i, segment in enumerate(segments) if i not in gone
    ]
