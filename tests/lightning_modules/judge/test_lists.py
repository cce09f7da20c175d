import pytest

from lightning_modules.judge.lists import find_list


@pytest.mark.parametrize(
    ("text", "brackets", "elements"),
    [
        ("1, 2", "", ("1", "2")),
        ("{1, 2, 1}", "{}", ("1", "2")),
        ("[1, 2)", "[)", ("1", "2")),
        ("(1,000, 2,000)", "()", ("1,000", "2,000")),
        ("1 and 2", "", ("1", "2")),
        ("a, b, and c", "", ("a", "b", "c")),
        ("±2", "", ("2", "-2")),
        ("5 ± x", "", ("5+x", "5-x")),
        ("{(1, 2), (3, 4)}", "{}", ("(1, 2)", "(3, 4)")),
        ("{7}", "{}", ("7",)),
        ("1 2 3", "()", ("1", "2", "3")),
        ("(a) 5, (b) 12", "", ("a = 5", "b = 12")),
        ("(0,1)∪(2,3)", "", ("(0,1)", "(2,3)")),
    ],
)
def test_elements_are_split_outside_of_brackets(text: str, brackets: str, elements: tuple[str, ...]) -> None:
    several = find_list(text)
    assert several is not None
    assert (several.brackets, several.elements) == (brackets, elements)


@pytest.mark.parametrize(
    "text", ["", "7", "(7)", "(1, 2", "1, 2)", "f(1, 2)", r"\begin{pmatrix} 1 & 2 \end{pmatrix}", "1, " * 100]
)
def test_other_texts_are_no_lists(text: str) -> None:
    assert find_list(text) is None
