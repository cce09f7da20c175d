import pytest

from lightning_modules.evaluation.think_scores import AnsweredRow, last_boxed, same_answer, think_scores
from lightning_modules.generation.think_response import ThinkResponse


def response(answer: str, finished: bool = True, thoughts: tuple[str, ...] = ("a",)) -> ThinkResponse:
    return ThinkResponse("", thoughts, answer, finished, balanced=True)


@pytest.mark.parametrize(
    ("ours", "theirs", "same"),
    [
        ("\n\nx = 7", "x  = 7\n", True),
        ("x = 7", "x = 8", False),
        ("x = 7.", "x = 7", False),
        (r"So \boxed{ 3/4 }.", r"The answer: \boxed{3/4}", True),
        (r"\boxed{1} or \boxed{\frac{1}{2}}", r"\boxed{\frac{1}{2}}", True),
        (r"\boxed{1}", r"\boxed{2}", False),
        (r"At first \boxed{5}. No: \boxed{\frac{1}{\sqrt{2}}}", r"\boxed{5}", False),
        (r"\boxed{1 2}", r"\boxed{12}", False),
        (r"\boxed{1  2}", "\\boxed{ 1\n2 }", True),
        (r"\boxed{x = 1}", r"\boxed{x=1}", True),
        (r"\boxed{x = 1,\; y  =  2}", r"\boxed{x=1, \;y=2}", True),
        (r"\boxed{a b}", r"\boxed{ab}", False),
        (r"\boxed{}", r"\boxed{}", False),
        (r"\boxed{ }", r"\boxed{5}", False),
        ("", "", False),
        (" \n", "", False),
        (r"At first \boxed{5}. No: \boxed{\frac{1}{\sqrt{2}}}", r"\boxed{\frac{1}{\sqrt{2}}}", True),
    ],
)
def test_answers_match_by_their_last_box_or_by_their_words(ours: str, theirs: str, same: bool) -> None:
    assert same_answer(response(ours), response(theirs)) == same
    assert not same_answer(response(ours, finished=False), response(theirs))


@pytest.mark.parametrize(
    ("text", "content"),
    [
        ("no box", None),
        (r"\boxed{}", ""),
        (r"\boxed{a} \boxed{b}", "b"),
        (r"\boxed{\frac{1}{\sqrt{2^{n}}}}.", r"\frac{1}{\sqrt{2^{n}}}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{\}}", r"\}"),
        (r"\boxed{a} and \boxed{never closed", "a"),
        (r"\boxed{never \boxed{b}", "b"),
        (r"\boxed{ends with \ ".rstrip(), None),
    ],
)
def test_the_last_closed_box_is_found_however_deep_its_braces_are(text: str, content: str | None) -> None:
    assert last_boxed(text) == content


def test_scores_are_ratios_of_the_answered_rows() -> None:
    rows = [
        AnsweredRow(0, "easy", "p", response("7"), response("7")),
        AnsweredRow(1, "easy", "p", response("8"), response("7")),
        AnsweredRow(2, "hard", "p", response("7", thoughts=()), response("7")),
        AnsweredRow(3, "hard", "p", response("7", finished=False), response("7")),
    ]
    assert think_scores(rows) == {
        "answered": 4, "think_format": 0.5, "finished": 0.75, "thoughts": 0.75, "answer_match": 0.5,
        "answered/easy": 2, "answer_match/easy": 0.5, "answered/hard": 2, "answer_match/hard": 0.5,
    }  # fmt: skip
    assert think_scores([]) == {}


def test_the_json_object_has_the_documented_keys() -> None:
    row = AnsweredRow(3, "easy", "Ask", response(" 7 "), response("7\n"))
    assert row.as_json() == {
        "row": 3, "prompt": "Ask", "thoughts": ["a"], "answer": "7", "finished": True, "reference": "7",
        "matches": True, "well_formed": True, "ended_by": "end", "tokens": 0, "thinking_tokens": 0, "forced_tokens": 0,
        "raw": "",
    }  # fmt: skip
