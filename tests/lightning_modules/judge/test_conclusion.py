"""What thoughts name as their answer, and whether the answer is another one."""

import json
from pathlib import Path

import pytest

from lightning_modules.judge.conclusion import conclusion, letter_of, named_answer
from tests.conftest import REAL_ROWS


@pytest.mark.parametrize(
    ("reasoning", "named"),
    [
        ("5 + 2 = 7.\nSo the answer is 7.", "7"),
        (r"So \boxed{\frac{1}{2}}." + "\nThat looks right.", r"\frac{1}{2}"),
        ("Option A fails.\nSo option B is correct.", "(B)"),
        ("I will go with (C)", "(C)"),
        ("Subtract 5 from both sides: x = 12 - 5 = 7.", None),  # a value on the way
        ("The answer is 7.\nWait, let me check that again", None),  # taken back, for all that is known
        ("So B it is. Option A has the age before the size.", None),  # about the choice that was ruled out
        ("The answer is that neither fits, but A is better", None),
        ("", None),
        ("Hm.", None),
    ],
)
def test_a_named_answer_is_read_and_a_value_on_the_way_is_none(reasoning: str, named: str | None) -> None:
    found = named_answer(reasoning)
    assert (found and found.strip(".")) == named


@pytest.mark.parametrize(
    ("reasoning", "answer", "contradicted"),
    [
        ("The answer is 7.", "x = 7", False),
        ("The answer is 7.", "x = 8", True),
        ("So option B is correct.", "The best answer is: (B) Eli", False),
        ("So option B is correct.", "The best answer is: (A)", True),
        ("I think the answer is (B), the match.", "(B) the wooden match", False),  # the letter decides
        ("The answer is 9:30 PM.", "21:30", False),
        ("The answer is 9:30 PM.", "9:30 AM", True),
        (r"So \boxed{x^2 - 9}.", r"\boxed{(x-3)(x+4)}", False),  # only numbers, times and choices are sure
        ("The answer is 7.", "I do not know, sorry.", False),
        ("The answer is 7.", "", False),
    ],
)
def test_an_answer_contradicts_thoughts_that_name_another_value(
    reasoning: str, answer: str, contradicted: bool
) -> None:
    found = conclusion(reasoning, answer)
    assert found is not None and found.contradicted is contradicted


def test_thoughts_that_name_nothing_are_not_contradicted() -> None:
    assert conclusion("5 + 2 = 7", "8") is None


@pytest.mark.parametrize(
    ("text", "letter"),
    [("(B)", "B"), ("The best answer is: (a)", "A"), ("B", "B"), ("b", None), ("C) Eli", "C"), ("7", None), ("", None),
     ("x = 7", None), ("(A) " + "x" * 5_000, "A"), ("A cat", None)],
)  # fmt: skip
def test_the_letter_of_an_answer(text: str, letter: str | None) -> None:
    assert letter_of(text) == letter


@pytest.mark.skipif(REAL_ROWS is None, reason="needs THINKWRIGHT_REAL_ROWS")
def test_a_strong_model_hardly_ever_contradicts_its_own_thoughts() -> None:
    assert REAL_ROWS is not None
    found = []
    for path in Path(REAL_ROWS).glob("*.jsonl"):
        for line in path.read_text().splitlines():
            thoughts, _, answer = json.loads(line)["response"].rpartition("</think>")
            found.append(conclusion(thoughts, answer))
    named = [one for one in found if one is not None]
    assert len(named) > len(found) / 2
    assert sum(one.contradicted for one in named) < len(named) / 100
