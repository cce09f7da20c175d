"""How a response failed, for every way in which one can end."""

from dataclasses import replace

import pytest

from datamodules.tokens.tokenizer import ThinkTokenizer
from lightning_modules.evaluation.failures import LABELS, failures_of, ratios
from lightning_modules.generation.think_response import ThinkResponse, parse_response

LOOP = "Wait, let me check this again. " * 20
GOOD = ThinkResponse("<think>The answer is 7.</think>x = 7", ("The answer is 7.",), "x = 7", True, True)


def written(tokenizer: ThinkTokenizer, *parts: str, end: bool = True) -> ThinkResponse:
    """A response in parts; "<" and ">" are the tags."""
    ids: list[int] = []
    for part in parts:
        tags = {"<": tokenizer.open_id, ">": tokenizer.close_id}
        ids += [tags[part]] if part in tags else tokenizer.encode([part])[0]
    return parse_response([*ids, tokenizer.end_id] if end else ids, tokenizer, [tokenizer.end_id])


@pytest.mark.parametrize(
    ("parts", "end", "marks"),
    [
        (("<", "The answer is 7.", ">", "x = 7"), True, {"concluded"}),
        (("<", "The answer is 7.", ">", "x = 8"), True, {"concluded", "contradicted"}),
        (("<", "5 + 2", ">", "x = 8"), True, set()),
        (("<", "The answer is 7.", ">", "x = 8"), False, {"cut"}),  # no whole answer, so nothing contradicts
        (("<", "The answer"), False, {"cut", "cut_in_thought"}),
        (("<", "a", ">", "<", "The answer"), False, {"cut", "cut_in_thought"}),
        (("<", "a", ">", "x ="), False, {"cut"}),
        (("x ="), False, {"cut"}),
        ((), False, {"cut"}),
        ((), True, set()),
        (("<", "The answer"), True, set()),  # malformed, but not cut
        (("<", LOOP), False, {"cut", "cut_in_thought", "looped"}),
        (("<", "Hm. ", LOOP, ">", "x = 7"), True, {"looped"}),
        (("<", "Hm.", ">", "x = 7. ", LOOP), True, {"looped"}),
        (("<", "No.", ">") * 60, False, {"cut", "looped"}),
        ((*("<", "No, no, no.", ">") * 60, "x = 7"), True, {"looped"}),
        (("<", LOOP, "So the answer is 7.", ">", "x = 7"), True, {"concluded"}),  # it got out of the loop
    ],
)
def test_each_ending_has_its_marks(
    parts: tuple[str, ...], end: bool, marks: set[str], tiny_tokenizer: ThinkTokenizer
) -> None:
    found = failures_of(written(tiny_tokenizer, *parts, end=end)).marks()
    assert list(found) == list(LABELS)
    assert {name for name, holds in found.items() if holds} == marks


def test_the_place_of_a_loop_is_named(tiny_tokenizer: ThinkTokenizer) -> None:
    loop = failures_of(written(tiny_tokenizer, "<", "Hm.", ">", "<", f"So. {LOOP}", ">", "x = 7")).loop
    assert loop is not None and (loop.part, loop.times) == ("thought 2", 20)
    assert loop.start == 2 and loop.repeated in LOOP  # ". " ends the loop, too


def test_a_loop_that_the_control_of_thinking_ended_counts() -> None:
    found = failures_of(replace(GOOD, cut="loop"))
    assert found.looped and found.loop is None
    assert not failures_of(replace(GOOD, cut="budget")).looped


def test_every_response_is_well_formed_or_cut_or_malformed() -> None:
    for finished in (True, False):
        for balanced in (True, False):
            one = replace(GOOD, finished=finished, balanced=balanced)
            found = failures_of(one)
            assert one.well_formed + found.cut + found.malformed == 1


def test_ratios_are_of_all_responses_and_none_of_no_responses() -> None:
    marks = [failures_of(one).marks() for one in (GOOD, replace(GOOD, finished=False))]
    assert ratios(marks) == {
        "cut": 0.5, "cut_in_thought": 0, "looped": 0, "concluded": 0.5, "contradicted": 0,
    }  # fmt: skip
    assert ratios([]) == {}
