import pytest

from lightning_modules.judge.choice import find_choice, same_choice


@pytest.mark.parametrize("text", ["(B)", "B", "b)", "B.", "Option B", "(B) red", "B: red", "(B) is correct"])
def test_a_letter_is_found_in_every_form(text: str) -> None:
    choice = find_choice(text)
    assert choice is not None
    assert choice.letter == "B"


@pytest.mark.parametrize(
    "text", ["K", "A cat", "a. cat sat", "(A) is wrong.", "(a) 5 (b) 12", "because", "AB", "(A) and (B)"]
)
def test_other_texts_are_no_choice(text: str) -> None:
    assert find_choice(text) is None


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("(A)", "a", True),
        ("(A) red", "A", True),
        ("(A) red", "red", True),
        ("(A) red", "(A) blue", False),
        ("A", "B", False),
        ("a", "b", None),
        ("(A) red", "blue", None),
        ("x", "(X)", None),
    ],
)
def test_choices_are_the_same_by_letter_and_text(one: str, other: str, same: bool | None) -> None:
    assert same_choice(one, other) == same_choice(other, one) == same
