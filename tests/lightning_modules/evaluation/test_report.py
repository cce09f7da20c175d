import math
from typing import Any

import pytest

from lightning_modules.evaluation.report import print_report, report_figures, verdicts
from lightning_modules.evaluation.statistics import accuracy_interval, wilson


def answer(name: str, text: str, right: bool, sample: int = 0, **more: Any) -> dict[str, Any]:
    known = {"id": name, "sample": sample, "right": right, "rung": "number", "answer": text, "finished": True}
    known |= {"cut_in_thought": False, "looped": False, "concluded": True, "contradicted": False, "reference": "7"}
    return known | {"well_formed": True, "thoughts": 2, "tokens": 10, "group": ""} | more


def test_one_answer_to_each_question() -> None:
    answers = [
        answer("a", "7", True),
        answer("b", "8", False, thoughts=0, well_formed=False, tokens=20),
        answer("c", "", False, finished=False, rung="cut off", well_formed=False, tokens=30, cut_in_thought=True),
    ]
    assert report_figures(answers) == {
        "questions": 3, "answers": 3, "right": 1 / 3, "interval": [round(end, 6) for end in wilson(1, 3)],
        "cut": 1 / 3, "cut_in_thought": 1 / 3, "looped": 0, "concluded": 1, "contradicted": 0, "baseline_frequent": 1,
        "well_formed": 1 / 3, "thoughts": 4 / 3, "tokens": 20,
        "rungs": {"right: number": 1, "wrong: number": 1, "wrong: cut off": 1},
    }  # fmt: skip


def test_groups_are_in_the_order_of_their_difficulty_and_then_of_their_names() -> None:
    groups = {"a": "zoo", "b": "hard", "c": "easy", "d": "hard"}
    figures = report_figures([answer(name, "7", name == "b", group=group) for name, group in groups.items()])
    assert list(figures["groups"]) == ["easy", "hard", "zoo"]
    assert figures["groups"]["hard"]["questions"] == 2 and figures["groups"]["hard"]["right"] == 0.5


def several() -> list[dict[str, Any]]:
    log = math.log
    return [
        answer("a", "x = 7", True, 0, confidence=log(0.9)),
        answer("a", "8", False, 1, confidence=log(0.3)),
        answer("a", "7", True, 2, confidence=log(0.6)),
        answer("b", "5", True, 1, confidence=log(0.9)),  # samples in no order
        answer("b", "6", False, 0, confidence=log(0.2)),
        answer("b", "6.0", False, 2, confidence=log(0.2)),
    ]


def test_several_samples_have_pass_at_k_and_votes() -> None:
    figures = report_figures(several())
    assert figures["pass_at"] == pytest.approx({"1": 0.5, "2": (1 + 2 / 3) / 2, "3": 1.0})
    assert figures["majority"]["right"] == 0.5 and figures["majority"]["share"] == pytest.approx(2 / 3)
    assert figures["weighted"]["right"] == 1.0  # one sure answer outweighs two others
    assert figures["weighted"]["share"] == pytest.approx((1.5 / 1.8 + 0.9 / 1.3) / 2)
    assert figures["interval"] == pytest.approx(
        accuracy_interval([[True, False, True], [False, True, False]]), abs=1e-6
    )
    assert verdicts(several()) == {"a": [True, False, True], "b": [False, True, False]}


def test_without_confidence_there_is_no_weighted_vote_and_without_tokens_no_number() -> None:
    answers = several()
    del answers[0]["confidence"], answers[1]["tokens"]
    figures = report_figures(answers)
    assert "weighted" not in figures and "tokens" not in figures and "majority" in figures


def test_a_cut_off_answer_votes_for_nothing() -> None:
    answers = [answer("a", "8", False, 0, finished=False), answer("a", "8", False, 1, finished=False)]
    figures = report_figures([*answers, answer("a", "7", True, 2)])
    assert figures["majority"] | {"interval": 0} == {"right": 1.0, "share": pytest.approx(1 / 3), "interval": 0}


def test_the_table_has_a_column_for_each_model_and_every_figure(capsys: pytest.CaptureFixture[str]) -> None:
    plain = [{name: value for name, value in one.items() if name != "tokens"} for one in several()[:1]]
    print_report({"base": report_figures(plain), "run\x1b": report_figures(several())}, "2 questions of\x1b[31m t")
    out = capsys.readouterr().out
    assert "\x1b" not in out and "2 questions of␛[31m t" in out
    lines = [line.split() for line in out.splitlines()]
    assert ["right", "answers", "100.0", "%", "50.0", "%"] in lines
    assert ["pass@3", "-", "100.0", "%"] in lines
    assert ["tokens", "per", "answer", "-", "10"] in lines
    assert any(line[:2] == ["vote", "by"] for line in lines)


def test_baselines_are_of_questions_and_letters_of_answers() -> None:
    """A question with more samples than the others counts once."""
    answers = [answer("a", "(A)", True, k, reference="(A)", options=4) for k in range(3)]
    figures = report_figures([*answers, answer("b", "(A)", False, reference="(B)", options=2)])
    names = ("baseline_frequent", "baseline_first", "baseline_random")
    assert [figures[name] for name in names] == [0.5, 0.5, (1 / 4 + 1 / 2) / 2]
    assert figures["letters"]["A"] == {"answers": 1.0, "references": 0.75}
