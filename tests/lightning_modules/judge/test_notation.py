import pytest

from lightning_modules.judge.notation import key, latex, plain


@pytest.mark.parametrize(
    ("text", "form"),
    [
        (r"\frac{1}{2}", "1/2"),
        (r"\dfrac12", "1/2"),
        (r"4\frac{1}{3}", "4 1/3"),
        (r"\frac{1}{2}x", "(1/2)x"),
        (r"\frac{1}{2x}", "1/(2x)"),
        (r"\frac{1}{\sqrt{2}}", "1/(sqrt(2))"),
        (r"\left( 3, -4 \right)", "( 3, -4 )"),
        (r"12\text{ cm}", "12 cm"),
        (r"\$18", "$18"),
        ("$x = 7$", "x = 7"),
        ("$5 and $6", "$5 and $6"),
        (r"50\%", "50%"),
        (r"1{,}000", "1,000"),
        ("2½", "2 1/2"),
        ("x²", "x^2"),
        ("x^{1}2", "x^(1)2"),
        (r"90^{\circ}", "90°"),
        ("−3", "-3"),
        ("１２٣", "123"),
        ("1\u202f000", "1 000"),
        ("7\u200b", "7"),
        (r"0.\overline{3}", "0.(3)"),
        (r"\emptyset", "∅"),
        (r"x \le 3", "x ≤3"),
        ("**12**", "12"),
        (r"\{1, 2\}", "{1, 2}"),
    ],
)
def test_all_notations_have_one_plain_form(text: str, form: str) -> None:
    assert plain(text) == form


def test_signs_become_commands_for_math_verify() -> None:
    assert latex("2√3 + π ≤ x²") == r"2\sqrt{3} + \pi \leq x^{2}"
    assert latex("2^(n+1)") == latex("2^{n+1}") == "2^{n+1}"
    assert latex("x^10") == "x^{10}"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("The cat.", "the cat", True),
        ("The cat", "cat", True),
        ("x = 1", "x=1", True),
        ("1 2", "12", False),
        ("a b", "ab", False),
        ("N", "n", False),
        ("2Ab", "2aB", False),
        ("1, 234", "1,234", False),
        ('"yes"', "Yes", True),
    ],
)
def test_texts_are_equal_without_what_has_no_meaning(one: str, other: str, same: bool) -> None:
    assert (key(one) == key(other)) == same
