import pytest

from lightning_modules.judge.equation import find_equation


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("x = 7", "x", "7"),
        ("7 = x", "x", "7"),
        ("f(x) = 2x + 3", "f(x)", "2x + 3"),
        ("x = 5 + 2 = 7", "x", "7"),
        ("x_1 = 3", "x_1", "3"),
        ("5 + 7 = 12", "", "12"),
        ("sqrt(9*13) = 3sqrt(13)", "", "3sqrt(13)"),
        ("total cost = 12", "total cost", "12"),
    ],
)
def test_the_value_and_its_name_are_found(text: str, name: str, value: str) -> None:
    equation = find_equation(text)
    assert equation is not None
    assert (equation.name, equation.value) == (name, value)


@pytest.mark.parametrize("text", ["7", "x^2 + y^2 = 4", "x <= 3", "x == 3", "x = 1, y = 2", "= 7", "x ≥ 3", "2x = 4y"])
def test_other_texts_give_no_value_a_name(text: str) -> None:
    assert find_equation(text) is None
