import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamodules.steps import split_steps
from datamodules.thoughts import parse


@pytest.mark.parametrize(
    "steps",
    [
        ["Subtract 3: 2x = 4.", "Divide by 2: x = 2."],
        ["It costs 3.50 dollars.", "That is 1,000.25 in all.", "Version 2.0.1 is out."],
        ["Use e.g. the rule of Dr. Smith, i.e. No. 5.", "See Fig. 3 vs. Eq. 4."],
        ["J. Smith met Ann B. Jones.", "They talked."],
        ["So it is option D.", "The others fail.", "Then A, B, C.", "Next is E."],
        ["1. First, add.", "2. Then divide.", "3) Done."],
        ["- one", "- two", "* three"],
        ["What is it?", "Wait!", "Hmm... no.", "Yes…", "Maybe."],
        ["4! = 24 and 2! × 3 = 6.", "Fine."],
        [r"We have \(x = 1. Then y\) here.", r"So \[a. B\] holds."],
        ["Take $x. Y$ and $$z. W$$ now.", "It costs $5.", "Really?"],
        ["```\na. B. C\n\nd. E\n```", "That was `x. Y` code."],
        ["See https://a.org/b.c?d=1.", "Then go on (see below. Or above.) and stop."],
        ['He said "Go."', "Then he left."],
        ["好的。", "我们来看！", "对吗？", "是。"],
        ["The clues are:\n\n1. A is red.", "2. B is blue."],
        ["x = 5", "y = 6", "So x + y = 11."],
    ],
)
def test_steps_end_where_a_reader_would_end_them(steps: list[str]) -> None:
    separator = "\n" if any(step[0] in "-*`123x" for step in steps) else " "
    assert split_steps(separator.join(steps)) == steps


def test_paragraphs_are_steps_and_wrapped_lines_are_not() -> None:
    assert split_steps("no stop here\n\nAnd a new\nline of it.\n") == ["no stop here", "And a new\nline of it."]


@given(st.text(alphabet=" \n\t.!?…。:()[]$`\\aA1é-–*#\"'", max_size=60))
def test_nothing_is_lost_but_white_space_at_the_ends(thought: str) -> None:
    steps = split_steps(thought)
    assert "".join("".join(steps).split()) == "".join(thought.split())
    assert all(step == step.strip() and step for step in steps)
    position = 0
    for step in steps:  # each step stands in the thought as it is
        position = thought.index(step, position) + len(step)


def test_nothing_is_lost_in_real_thoughts(real_rows: list[dict[str, str]]) -> None:
    count = 0
    for row in real_rows:
        for span in parse(row["response"])[0]:
            if span.thought:
                steps = split_steps(span.text)
                count += len(steps)
                assert "".join("".join(steps).split()) == "".join(span.text.split())
    assert count > 50_000


@pytest.mark.parametrize("text", ["This is it. ", "\\[ (a `", "((((", ". ", "`\n", "1. a\n", "$ ", "\\begin{ "])
def test_long_texts_that_make_scans_start_over_come_to_an_end(text: str) -> None:
    thought = text * (300_000 // len(text))
    assert "".join("".join(split_steps(thought)).split()) == "".join(thought.split())
