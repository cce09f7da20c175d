import pytest

from lightning_modules.judge.expression import compare_expressions
from lightning_modules.judge.math_verify_worker import MathVerify, Outcome


class Anything(MathVerify):
    """Says that all expressions are the same."""

    def compare(self, reference: str, written: str, as_found: bool = False) -> Outcome:
        return "same"


@pytest.mark.parametrize(
    ("written", "reference", "outcome"),
    [
        (r"2\sqrt{3}", r"\sqrt{12}", "same"),
        ("x+1", "1+x", "same"),
        (r"36\pi\text{ cm}^2", r"36\pi", "same"),
        (r"\log_2 8", "3", "same"),
        ("listen", "silent", None),
        ("9:30", "9:45 + 1", None),
        ("H2O", "HO2", None),
        (r"\text{yes} + 1", "1", None),
        (r"p\land q", r"p\lor q", None),
        ("the sum x + 1", "x + 1", None),
        ("x" * 600, "x + 1", None),
        (r"\frac{1}{2", r"\frac{1}{2}", None),
        ("66_{16} + 1", "66 + 1", "different"),
        (r"\overline{z} + 1", "z + 1", "different"),
        ("x' + 1", "x + 1", "different"),
        ("A + 1", "a + 1", "different"),
        ("x > 3", "3 + x", "different"),
        (r"\int x + 1", "x + 1", "different"),
        (r"36\pi\text{ cm}^2", r"36\pi\text{ m}^2", "different"),
    ],
)
def test_only_mathematics_without_marks_that_are_dropped_gets_to_math_verify(
    written: str, reference: str, outcome: Outcome | None
) -> None:
    assert compare_expressions(written, reference, Anything()) == outcome
    assert compare_expressions(reference, written, Anything()) == outcome
