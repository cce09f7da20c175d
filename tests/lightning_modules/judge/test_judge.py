"""The judge agrees with the labels of pairs.jsonl, and no text confuses it or takes it long."""

import json
import time
from fractions import Fraction
from itertools import islice, pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules.rows.builtin import rows as builtin_rows
from lightning_modules.judge.final_answer import last_boxed
from lightning_modules.judge.judge import judge
from lightning_modules.judge.math_verify_worker import MathVerify
from tests.conftest import REAL_ROWS

PAIRS = [json.loads(line) for line in (Path(__file__).parent / "pairs.jsonl").read_text(encoding="utf-8").splitlines()]
LARGEST_FALSE_WRONG = 0.02


def test_no_wrong_answer_is_right_and_few_right_ones_are_wrong() -> None:
    verdicts = [(pair, judge(pair["written"], pair["reference"])) for pair in PAIRS]
    assert not [(pair, verdict) for pair, verdict in verdicts if verdict.right and not pair["right"]]
    missed = [pair for pair, verdict in verdicts if pair["right"] and not verdict.right]
    assert len(missed) <= LARGEST_FALSE_WRONG * sum(pair["right"] for pair in PAIRS), missed


def test_the_table_is_large_and_has_each_pair_once() -> None:
    assert len({(pair["reference"], pair["written"]) for pair in PAIRS}) == len(PAIRS) >= 400
    assert min(sum(pair["right"] == label for pair in PAIRS) for label in (True, False)) >= 150
    assert sum(pair["part"] == "held_out" for pair in PAIRS) >= 120


@pytest.mark.parametrize(
    ("written", "reference", "rung"),
    [
        ("7", "7", "text"),
        ("(B)", "B) Eli", "choice"),
        ("9:30 PM", "21:30", "time, ratio, date"),
        ("0.5", "50 %", "number"),
        ("2, 1", r"\{1, 2\}", "list"),
        (r"\frac{\sqrt{2}}{2}", r"\frac{1}{\sqrt{2}}", "math-verify"),
        ("silent", "listen", "words"),
        ("", "7", "no answer"),
        ("7", "", "no answer"),
        (r"\boxed{}", r"\boxed{}", "no answer"),
    ],
)
def test_a_verdict_names_the_rung_that_gave_it(written: str, reference: str, rung: str) -> None:
    assert judge(written, reference).rung == rung


def test_plain_answers_start_no_worker() -> None:
    math_verify = MathVerify()
    for pair in PAIRS:
        if pair["kind"] in ("time, ratio, date", "choice", "last line"):
            judge(pair["written"], pair["reference"], math_verify)
    assert math_verify.starts == 0


def test_a_comparison_at_the_time_limit_is_not_right() -> None:
    assert judge(r"\boxed{9^{9^{9^{9}}}}", r"\boxed{9^{9^{9^{8}}}}", MathVerify(limit_s=0.5)).rung == "time limit"


@pytest.mark.parametrize("seed", range(2))
def test_the_built_in_answers_are_judged_by_their_value(seed: int) -> None:
    answers = [row["response"].rpartition("</think>")[2].strip() for row in islice(builtin_rows(seed), 300)]
    for own, other in pairwise(answers):
        assert judge(own, own).right
        assert judge(f"{own}, Check: 1 + 1 = 2.", own).right
        if [word for word in own.split() if word.isdigit()] != [word for word in other.split() if word.isdigit()]:
            assert not judge(other, own).right, (other, own)


@pytest.mark.skipif(REAL_ROWS is None, reason="needs THINKWRIGHT_REAL_ROWS")
def test_real_answers_are_right_against_themselves_and_not_against_another_number() -> None:
    rows = [json.loads(line) for file in sorted(Path(REAL_ROWS or "").glob("r1_*.jsonl")) for line in file.open()]
    responses = [row["response"] for row in rows if "</think>" in row["response"]]
    answers = [text for response in responses if (text := response.rpartition("</think>")[2]).strip()]
    assert len(answers) > 1_000
    assert not [text for text in answers if not judge(text, f"Well.\n\n{text}").right]
    numbers = [(int(box), text) for text in answers if (box := last_boxed(text)) and box.isdigit()]
    for (own, text), (other, another) in pairwise(numbers):
        assert judge(text, another).right == (own == other)


@settings(deadline=None)
@given(st.integers(-10_000, 10_000), st.integers(-10_000, 10_000))
def test_numbers_are_equal_in_any_notation_and_different_ones_in_none(a: int, b: int) -> None:
    forms = ("{}", "{:,}", "${}", "{}.0", r"\boxed{{{}}}", "The answer is {}.", "x = {}", "**{}**", "{} dollars")
    for ours in forms:
        for theirs in forms:
            assert judge(ours.format(a), theirs.format(b)).right == (a == b)


@settings(deadline=None)
@given(st.fractions(-50, 50, max_denominator=40), st.fractions(-50, 50, max_denominator=40))
def test_fractions_are_equal_in_any_notation(a: Fraction, b: Fraction) -> None:
    def forms(value: Fraction) -> list[str]:
        above, below = value.numerator, value.denominator
        sign = "-" if above < 0 else ""
        return [f"{above}/{below}", rf"\frac{{{above}}}{{{below}}}", rf"{sign}\dfrac{{{abs(above)}}}{{{below}}}"]

    for ours in forms(a):
        for theirs in forms(b):
            assert judge(ours, theirs).right == (a == b)


@settings(deadline=None)
@given(st.text(max_size=200), st.text(max_size=200))
def test_no_text_breaks_it(written: str, reference: str) -> None:
    verdict = judge(written, reference, MathVerify(command=("false",)))
    assert not (verdict.right and not (written.strip() and reference.strip()))
    assert judge(reference, written, MathVerify(command=("false",))).rung


HOSTILE = {
    "boxes that never close": "\\boxed{", "open braces": "{", "closed braces": "}", "boxes": "\\boxed{1}, ",
    "backslashes": "\\", "digits": "9", "commas": "1,", "spaces": " ", "lines": "\n", "phrases": "answer is ",
    "long phrases": "the answer to ", "marks": "#### ", "clauses": ", so ", "dollars": "$1", "fractions": "\\frac{",
    "emphasis": "*", "verbs": " is", "stops": ". ", "raised": "²", "joined": "1 and ", "choices": "option A ",
    "colons": ": ", "equals": "= ", "words": "word ", "slashes": "1/", "closing": "I hope\n",
}  # fmt: skip


@pytest.mark.parametrize("piece", HOSTILE.values(), ids=HOSTILE.keys())
def test_the_time_grows_linearly_with_the_text(piece: str) -> None:
    for length in (500, 2_000, 10_000, 1_000_000):
        text = piece * (length // len(piece))
        started = time.perf_counter()
        judge(text, "7")
        judge("7", text)
        assert time.perf_counter() - started < 5, length
