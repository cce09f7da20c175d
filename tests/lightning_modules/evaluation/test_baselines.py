"""What is right without reading the question, and the letters of choices."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_modules.evaluation.baselines import NO_LETTER, Asked, Letter, baselines, letters, options_in

CHOICES = [
    Asked("The best answer is: (A)", 2, "(A)", True),
    Asked("(A)", 2, "(B)", False),
    Asked("(B)", 4, "(A)", False),
    Asked("(C)", 4, None, False),
]


def test_a_baseline_is_right_in_its_share_of_all_questions() -> None:
    assert baselines(CHOICES) == {
        "baseline_frequent": 0.5,
        "baseline_first": 0.5,
        "baseline_random": (1 / 2 + 1 / 2 + 1 / 4 + 1 / 4) / 4,
    }
    mixed = baselines([*CHOICES, Asked("x = 7", 0, "7", True)])
    assert mixed["baseline_first"] == 2 / 5 and mixed["baseline_random"] == pytest.approx(1.5 / 5)


def test_without_choices_only_the_most_frequent_answer_is_a_baseline() -> None:
    answers = [r"So \boxed{\frac12}.", "The answer is 1/2.", "x = 7", ""]
    assert baselines([Asked(one, 0, "7", False) for one in answers]) == {"baseline_frequent": 0.5}
    assert letters([Asked(one, 0, "(A)", False) for one in answers]) == {}
    assert baselines([]) == {} and letters([]) == {}


def test_a_question_that_lists_no_choices_may_have_those_up_to_the_last_right_one() -> None:
    found = baselines([Asked("(A)", 0, None, False), Asked("(D)", 0, None, False)])
    assert found["baseline_random"] == 1 / 4
    assert baselines([Asked("(A)", 0, None, False)])["baseline_random"] == 1 / 2  # one choice is none
    assert baselines([Asked("(D)", 2, None, False)])["baseline_random"] == 1 / 4  # its list was read wrongly


def test_letters_are_shares_of_the_questions_with_choices() -> None:
    assert letters([*CHOICES, Asked("x = 7", 0, "(C)", False)]) == {
        "A": Letter(0.5, 0.5), "B": Letter(0.25, 0.25), "C": Letter(0.0, 0.25), NO_LETTER: Letter(0.25, 0.0),
    }  # fmt: skip


def test_the_words_of_the_right_option_have_its_letter() -> None:
    assert letters([Asked("(B) Eli", 2, "Eli", True)])["B"] == Letter(1.0, 1.0)


@pytest.mark.parametrize(
    ("question", "number"),
    [
        ("Which?\n(A) Ann\n(B) Bob\n(C) Cy", 3),
        ("Which one: (A) Ann (B) Bob", 2),
        ("Which?\nA. Ann\nB. Bob", 2),
        ("Which?\n- A) Ann\n- B) Bob\n- C) Cy\n- D: Di", 4),
        ("### Instruction: Is it (A) or (B)? In (C) it says so.\n### Response:", 3),
        ("Let A. be a point. B: another.", 0),
        ("(A) alone", 0),
        ("(B) and (C)", 0),
        ("Example: (A) x (B) y\nNow: (A) a (B) b (C) c", 3),
        ("", 0),
    ],
)
def test_the_choices_that_a_question_lists(question: str, number: int) -> None:
    assert options_in(question) == number


TEXTS = st.text(max_size=20) | st.sampled_from(["(A)", "B", "(E)"])
ASKED = st.builds(Asked, TEXTS, st.integers(0, 10), st.none() | TEXTS, st.booleans())


@settings(deadline=None)
@given(st.lists(ASKED, min_size=1, max_size=8))
def test_all_figures_are_ratios_and_letters_are_whole(asked: list[Asked]) -> None:
    found = baselines(asked)
    assert all(0 <= value <= 1 for value in found.values())
    assert found["baseline_frequent"] >= max(found.get("baseline_first", 0), 1 / len(asked))
    if shares := letters(asked):
        assert sum(one.answers for one in shares.values()) == pytest.approx(1)
        assert sum(one.references for one in shares.values()) == pytest.approx(1)
        assert shares[NO_LETTER].references == 0 and "baseline_random" in found
