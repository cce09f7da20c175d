"""Truncated thoughts: the right steps stay, the tokens match them, and no more steps are dropped than necessary."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules.text.example import Example
from datamodules.text.response import Passage
from datamodules.text.segments import END, TAG_CLOSE, TAG_OPEN, Role, Segment, render
from datamodules.text.steps import StepSettings, split_steps
from datamodules.tokens.tokenizer import Encoder, ThinkTokenizer
from datamodules.tokens.truncation import truncate_thoughts
from tests.conftest import TEMPLATE, TINY

MANY = settings(max_examples=200, deadline=None)
WHOLE, SENTENCES = StepSettings(split="none"), StepSettings(split="sentence")
STEPS = [
    "So x is 3.",
    "Wait.",
    "Add the two: 4 + 5 = 9.",
    "Is that right?",
    "好好好好好好好。",
    "Then y holds here.",
    "1.",
]
sentences = st.lists(st.sampled_from(STEPS), min_size=1, max_size=30)
between = st.sampled_from(["", "\n", "\n\nSo far, x = 3.\n", "好" * 20])


@st.composite
def examples(draw: st.DrawFn) -> Example:
    """One to three thoughts with text around them."""
    passages = [Passage(draw(between), thought=False)]
    for _ in range(draw(st.integers(1, 3))):
        passages += [
            Passage("\n" + " ".join(draw(sentences)) + "\n", thought=True),
            Passage(draw(between), thought=False),
        ]
    passages[-1] = Passage(f"{passages[-1].text}\nAnswer: 4", thought=False)
    return Example(draw(st.sampled_from(["2 + 2?", "2 + 2? " * 20])), tuple(s for s in passages if s.text))


@pytest.fixture(scope="module")
def encoder(tiny_tokenizer: Any) -> Encoder:
    found: Encoder = tiny_tokenizer.encoder
    return found


def loaded() -> Encoder:
    """The encoder for hypothesis, which cannot use fixtures."""
    return ThinkTokenizer.load(str(TINY)).encoder


def tokens(segments: list[Segment], encoder: Encoder) -> int:
    return len(encoder.encode_rows([segments])[0][0])


def steps_of(segments: list[Segment]) -> list[str]:
    """Each sentence of the thoughts, in order."""
    return [step for piece in segments if piece.role == Role.THOUGHT for step in split_steps(piece.text, SENTENCES)]


def around(segments: list[Segment]) -> list[Segment]:
    """All segments except thoughts and their tags."""
    return [piece for piece in segments if piece.role in (Role.PROMPT, Role.ANSWER, Role.END)]


def balanced(segments: list[Segment]) -> bool:
    """Whether every thought stands between its two tags, and no tag stands anywhere else."""
    roles = "".join({Role.TAG_OPEN: "(", Role.THOUGHT: "t", Role.TAG_CLOSE: ")"}.get(s.role, "") for s in segments)
    pairs = all(
        segments[i - 1].role == Role.TAG_OPEN and segments[i + 1].role == Role.TAG_CLOSE
        for i, piece in enumerate(segments)
        if piece.role == Role.THOUGHT
    )
    return pairs and roles == "(t)" * (len(roles) // 3)


def is_subsequence(part: list[Any], whole: list[Any]) -> bool:
    rest = iter(whole)
    return all(item in rest for item in part)


def shortest(segments: list[Segment], within: bool, encoder: Encoder) -> int:
    """Tokens of the row with only its first and last step."""
    units = [
        (i, step) for i, piece in enumerate(segments) if piece.role == Role.THOUGHT for step in _units(piece, within)
    ]
    ends = dict[int, str]()
    for i, step in units[:1] + units[1:][-1:]:
        ends[i] = ends.get(i, "") + step
    left: list[Segment] = []
    for i, piece in enumerate(segments):
        if i in ends:
            left += [TAG_OPEN, Segment(Role.THOUGHT, ends[i]), TAG_CLOSE]
        elif piece.role in (Role.PROMPT, Role.ANSWER, Role.END):
            left.append(piece)
    return tokens(left, encoder)


def _units(piece: Segment, within: bool) -> list[str]:
    """A thought cut at the beginning of each sentence, without loss of white space."""
    if not within:
        return [piece.text]
    starts, at = [0], 0
    for step in split_steps(piece.text, SENTENCES):
        at = piece.text.index(step, at)
        starts.append(at)
        at += len(step)
    cuts = [0, *starts[2:], len(piece.text)]
    return [piece.text[a:b] for a, b in pairwise(cuts)]


@MANY
@given(examples(), st.booleans(), st.floats(0, 1.1))
def test_a_truncated_row_fits_and_keeps_the_text_of_the_row(example: Example, within: bool, ratio: float) -> None:
    encoder = loaded()
    segments = render(example, TEMPLATE, WHOLE if within else SENTENCES)
    before = tokens(segments, encoder)
    max_length = int(before * ratio)
    found = truncate_thoughts(segments, max_length, encoder, not within)
    if found is None:
        assert shortest(segments, within, encoder) > max_length
        return
    kept, ids, roles = found
    expected_ids, expected_roles = encoder.encode_rows([kept])[0]
    assert ids.tolist() == expected_ids.tolist() and roles.tolist() == expected_roles.tolist()
    assert len(ids) <= max_length
    assert balanced(kept)
    assert around(kept) == around(segments)
    assert is_subsequence(steps_of(kept), steps_of(segments))
    if not within:
        assert is_subsequence(kept, segments)
    assert steps_of(kept)[0] == steps_of(segments)[0] and steps_of(kept)[-1] == steps_of(segments)[-1]
    if before <= max_length:
        assert kept == segments


@MANY
@given(examples(), st.booleans(), st.integers(-3, 3))
def test_truncation_fails_exactly_if_the_first_and_last_step_do_not_fit(
    example: Example, within: bool, more: int
) -> None:
    encoder = loaded()
    segments = render(example, TEMPLATE, WHOLE if within else SENTENCES)
    least = shortest(segments, within, encoder)
    found = truncate_thoughts(segments, least + more, encoder, not within)
    assert (found is None) == (more < 0)


DENSE, SPARSE = "好" * 10 + "。", "the answer is the one. "


@pytest.mark.parametrize("within", [False, True])
@pytest.mark.parametrize("step", [DENSE, SPARSE, "X = 1. "])
@pytest.mark.parametrize("rest", ["好" * 300, "the answer " * 150])
def test_no_more_steps_are_dropped_than_necessary(encoder: Encoder, within: bool, step: str, rest: str) -> None:
    """This holds for any number of tokens per character, in the steps and in the rest of the row."""
    count = 100
    steps = [f"X = {i}. {step}" if step is SPARSE else step for i in range(count)]
    passages = [Passage("".join(steps), thought=True)] if within else [Passage(text, thought=True) for text in steps]
    example = Example(rest, (*passages, Passage(rest, thought=False)))
    segments = render(example, TEMPLATE, WHOLE)
    before = tokens(segments, encoder)
    thinking = before - tokens(around(segments), encoder)
    one = thinking // count + 4
    for max_length in (before - 1, before - thinking // 3, before - thinking // 2, before - thinking * 9 // 10):
        found = truncate_thoughts(segments, max_length, encoder, not within)
        assert found is not None
        assert max_length - 2 * one < len(found[1]) <= max_length


@pytest.mark.parametrize("within", [False, True])
def test_many_short_steps_are_dropped_beside_a_long_answer(encoder: Encoder, within: bool) -> None:
    """An estimate by the mean tokens of the row would drop too few steps."""
    steps = ["First. ", *["Ok so. "] * 200, "Last."]
    passages = [Passage("".join(steps), thought=True)] if within else [Passage(text, thought=True) for text in steps]
    segments = render(Example("a", (*passages, Passage("好" * 500, thought=False))), TEMPLATE, WHOLE)
    found = truncate_thoughts(segments, shortest(segments, within, encoder), encoder, not within)
    assert found is not None and steps_of(found[0]) == ["First.", "Last."]


def rows(*thoughts: str) -> list[Segment]:
    """Blocks of these, each followed by a line end, and an answer."""
    passages = [passage for text in thoughts for passage in (Passage(text, thought=True), Passage("\n", thought=False))]
    return render(Example("a", (*passages, Passage("4", thought=False))), TEMPLATE, WHOLE)


def test_the_middle_is_dropped_first(encoder: Encoder) -> None:
    segments = rows(" ".join(f"Step {i}." for i in range(9)))
    kept = [[f"Step {i}." for i in range(9) if i not in out] for out in ((), (4,), (3, 4, 5), (1, 2, 3, 4, 5, 6, 7))]
    for steps in kept:
        most = tokens(rows(" ".join(steps)), encoder)
        found = truncate_thoughts(segments, most, encoder, whole_thoughts=False)
        assert found is not None and steps_of(found[0]) == steps


def test_a_block_without_steps_is_dropped_with_its_tags(encoder: Encoder) -> None:
    segments = rows("A b. C d.", "E f. G h.", "I j. K l.")
    assert sum(piece.role == Role.TAG_OPEN for piece in segments) == 3
    found = truncate_thoughts(
        segments, tokens(rows("A b. C d.", "I j. K l."), encoder) + 3, encoder, whole_thoughts=False
    )
    assert found is not None
    assert [piece.text for piece in found[0] if piece.role == Role.THOUGHT] == ["A b. C d.", "I j. K l."]
    assert balanced(found[0]) and around(found[0]) == around(segments)


def test_a_step_is_a_whole_thought_or_a_sentence(encoder: Encoder) -> None:
    segments = rows("A b. C d.", "E f. G h. I j. K l.", "M n.")
    most = tokens(segments, encoder) - 1
    whole, inside = (truncate_thoughts(segments, most, encoder, not within) for within in (False, True))
    assert whole is not None and inside is not None
    assert steps_of(whole[0]) == ["A b.", "C d.", "M n."]
    assert len(steps_of(inside[0])) == 6 and [piece.role for piece in inside[0]] == [piece.role for piece in segments]


@pytest.mark.parametrize("within", [False, True])
@pytest.mark.parametrize("thoughts", [(), ("A b.",), ("A b.", "C d.")])
def test_rows_without_a_middle_cannot_be_truncated(encoder: Encoder, within: bool, thoughts: tuple[str, ...]) -> None:
    segments = rows(*thoughts)
    length = tokens(segments, encoder)
    assert truncate_thoughts(segments, length - 1, encoder, not within) is None
    found = truncate_thoughts(segments, length, encoder, not within)
    assert found is not None and found[0] == segments


def test_a_kept_empty_block_leaves_no_lone_tag(encoder: Encoder) -> None:
    segments = [*rows("A b. C d. E f.")[:-1], TAG_OPEN, Segment(Role.THOUGHT, ""), TAG_CLOSE, END]
    found = truncate_thoughts(segments, tokens(segments, encoder) - 1, encoder, whole_thoughts=False)
    assert found is not None and balanced(found[0])
