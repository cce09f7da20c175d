"""Code, LaTeX, quotations, brackets, tables, emphasis and elements are found as whole texts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamodules.text.protected import protected_spans


@pytest.mark.parametrize(
    ("text", "protected"),
    [
        ("a `b. c` d ``` e\nf ``` g", ["`b. c`", "``` e\nf ```"]),
        ("````\n```\na\n```\n````", ["````\n```\na\n```\n````"]),
        ("~~~\na. B\n~~~ ~~a. B~~ a~~~b", ["~~~\na. B\n~~~", "~~a. B~~"]),
        ("「a『b。』c「d。」e」f（g。）", ["「a『b。』c「d。」e」", "（g。）"]),
        ("« A. B » et „C. D“ und »E. F«", ["« A. B »", "„C. D“", "»E. F«"]),
        ("« A » et b. Puis « C »", ["« A »", "« C »"]),  # never from » to «
        ("他说\"是\"，她说\"不。好\"了", ["\"是\"", "\"不。好\""]),
        ("a < b and <b>c. D</b>, <pre>\ne\n</pre>", ["<b>c. D</b>", "<pre>\ne\n</pre>"]),
        ("2 * 3 * 4, x_1. y_2, \\* a*, **b. C** and *d. E*", ["**b. C**", "*d. E*"]),
        ("x\n| a | b |\n|---|---|\n| c | d |\ny\n", ["| a | b |\n|---|---|\n| c | d |"]),
        ("x\n\na | `b`\n--|--\nc | d\ny", ["`b`", "\n--|--\nc | d"]),
        ("|x| = 1\n|y| = 2\na - | b", []),
    ],
)  # fmt: skip
def test_the_texts_that_no_step_may_split(text: str, protected: list[str]) -> None:
    assert [text[start:end] for start, end in protected_spans(text)] == protected


@given(
    st.lists(st.sampled_from([*'\n a.|-*_~`<>"“”„‘「」«»()[]$\\', "```", "~~~", "<b>", "</b>", "\n|-|"]), max_size=50)
)
def test_spans_are_in_order_and_do_not_overlap(parts: list[str]) -> None:
    text = "".join(parts)
    edges = [0, *(edge for span in protected_spans(text) for edge in span), len(text)]
    assert edges == sorted(edges)
