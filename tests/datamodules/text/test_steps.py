"""Steps end where a careful reader ends them. boundaries.jsonl has one labelled excerpt per line:

`source` and `row` (file of real R1 traces, line in the file), `part`, `text`, `steps` (the text cut at the ends of
sentences), `turns` (indices from 0 of the steps that turn). The labels follow this convention:

- a step ends with a sentence, after its stop and its closing quotes and brackets; never inside brackets or quotes;
- each list item is a step, and so is each equation or option on a line of its own;
- a line that ends in a colon stays with the next line: the first item, the equation, the code;
- a paragraph ends at an empty line;
- a step turns if its first words doubt or check an earlier statement, or try another way.

The splitter was tuned on `dev`. `test` was not used for tuning, but the same person had read it for labelling. `fresh`
was drawn and labelled after the splitter was finished.

boundaries_languages.jsonl has texts of the same form in Chinese, Japanese, German and Arabic (`source`), written for
this project as reasoning with mathematics, code, lists, tables and quotations. `dev` and `test` were labelled before
the rules of these languages existed, `fresh` when they were finished; a few rules came from its errors.
"""

import json
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamodules.text.markers import MARKERS
from datamodules.text.steps import StepMode, StepSettings, split_steps, step_spans
from errors import UserError


def labelled(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(__file__).with_name(name).read_text(encoding="utf-8").split("\n") if line]


LABELLED = labelled("boundaries.jsonl")
LABELLED_LANGUAGES = labelled("boundaries_languages.jsonl")
MODES: tuple[StepMode, ...] = ("sentence", "paragraph", "marker")
THINK = re.compile(r"<think>(.*?)</think>", re.DOTALL)


def squeezed(text: str) -> str:
    return "".join(text.split())


def boundaries(steps: list[str]) -> set[int]:
    """The number of characters other than white space before the end of each step but the last."""
    sizes = [len(squeezed(step)) for step in steps]
    return {sum(sizes[:i]) for i in range(1, len(sizes))}


def labelled_steps(excerpt: dict[str, Any], mode: StepMode) -> list[str]:
    if mode == "sentence":
        return list(excerpt["steps"])
    if mode == "paragraph":
        return re.split(r"\n[ \t]*\n", excerpt["text"])
    turns = [0, *excerpt["turns"], len(excerpt["steps"])]
    return [" ".join(excerpt["steps"][a:b]) for a, b in pairwise(turns)]


def precision_and_recall(
    split: Callable[[str], list[str]], excerpts: list[dict[str, Any]], mode: StepMode
) -> tuple[float, float, int]:
    """Return the precision and recall of a splitter on labelled excerpts, and the number of labelled boundaries."""
    right = found = labelled = 0
    for excerpt in excerpts:
        ours, theirs = boundaries(split(excerpt["text"])), boundaries(labelled_steps(excerpt, mode))
        right, found, labelled = right + len(ours & theirs), found + len(ours), labelled + len(theirs)
    return right / max(found, 1), right / labelled, labelled


@pytest.mark.parametrize(
    "steps",
    [
        ["Subtract 3: 2x = 4.", "Divide by 2: x = 2."],
        ["It costs 3.50 dollars.", "That is 1,000.25 in all.", "Version 2.0.1 is out."],
        ["Use e.g. the rule of Dr. Smith, i.e. No. 5.", "See Fig. 3 vs. Eq. 4."],
        ["J. Smith met e.g. Ann B. Jones at 5 p.m. Eastern time.", "They talked."],
        ["So it is option D.", "The others fail.", "Then A, B, C.", "Next is E."],
        ["1. First, add.", "2. Then divide.", "3) Done."],
        ["- one", "- two", "* three"],
        ["What is it?", "Wait!", "Hmm... no.", "Yes…", "Maybe."],
        ["4! = 24 and 2! × 3 = 6.", "Fine."],
        ["It is x = 45.", "So 7 is out.", "That is Prof. Xu, approx. Five."],
        [r"We have \(x = 1. Then y\) here.", r"So \[a. B\] holds."],
        ["Take:\n\\[\na = 1.\n\nB = 2\n\\]\nas it is.", "Then:\n$$\nx.\n\nY\n$$\nholds."],
        [r"So \begin{align} a &= 1. \\ B &= 2. \end{align} holds.", "Good."],
        ["Take $x. Y$ and $$z. W$$ now.", "It costs $5.", "Really?"],
        ["```\na. B. C\n\nd. E\n```", "That was `x. Y` code."],
        ["See https://a.org/b.c?d=1.", "Then go on (see below. Or above.) and stop."],
        ['He said "Go."', "Then he left."],
        ['It asks "What is x? Give it in cm." and stops.', "“Yes. No.” he said.", "Fine."],
        ["It holds (as it is fair.)", "So 5 (or 6?) is it.", "Next (the 2nd (or 3rd. No.) one) fails."],
        ["It is a red (colour?) Mexican (origin?) hat.", "So it goes (no?) —wait, no (or yes?)", "Hmm, it does."],
        ["A lone (bracket opens.", "It (never) closes.", "Fine."],
        ["好的。", "我们来看！", "对吗？", "是。"],
        ["The clues are:\n\n1. A is red.", "2. B is blue."],
        ["**Then:**\n\nv1 = 5", "v2 = 6", "So x + y = 11."],
        ["x = 5", "y = 6", "So x + y = 11."],
    ],
)
def test_steps_end_where_a_reader_ends_them(steps: list[str]) -> None:
    separator = "\n" if any(step[0] in "-*`123xv" for step in steps) else " "
    assert split_steps(separator.join(steps)) == steps


def test_paragraphs_are_steps_and_wrapped_lines_are_not() -> None:
    assert split_steps("no stop here\n\nAnd a new\nline of it.\n") == ["no stop here", "And a new\nline of it."]


def test_a_cjk_thought_without_spaces_is_split() -> None:
    assert split_steps("好的。我们来看！“对吗？”是。") == ["好的。", "我们来看！", "“对吗？”", "是。"]


def test_paragraph_mode_splits_only_at_empty_lines_outside_code_and_latex() -> None:
    paragraphs = ["One. Two:", "- a\n- b", "```\na\n\nb\n```", "So\n\\[\nx\n\n= 1\n\\]\nholds."]
    assert split_steps("\n\n".join(paragraphs), StepSettings("paragraph")) == paragraphs
    assert split_steps("a\n \t\n\n b \n", StepSettings("paragraph")) == ["a", "b"]


@pytest.mark.parametrize("line", ["\u3000", "\xa0", " \u3000\xa0\t"])
def test_a_line_of_wide_or_no_break_spaces_is_empty(line: str) -> None:
    assert split_steps(f"one\n{line}\ntwo", StepSettings("paragraph")) == ["one", "two"]
    assert split_steps(f"one\n{line}\ntwo") == ["one", "two"]


@pytest.mark.parametrize(
    ("thought", "steps"),
    [
        ("One.\n\n---\n\nTwo.", ["One.\n\n---", "Two."]),
        ("***\n\nOne.\n\n...\n\nTwo.", ["***\n\nOne.\n\n...", "Two."]),
        ("One.\n\n(\n\nTwo.\n\n)", ["One.", "(\n\nTwo.\n\n)"]),
        ("One.\n\n[\n\n…", ["One.\n\n[\n\n…"]),
        ("…\n\n---", ["…\n\n---"]),
        ("。\n\n好", ["。\n\n好"]),
    ],
)
@pytest.mark.parametrize("mode", ["sentence", "paragraph"])
def test_a_piece_without_a_letter_or_digit_joins_a_neighbour(mode: StepMode, thought: str, steps: list[str]) -> None:
    assert split_steps(thought, StepSettings(mode)) == steps


@pytest.mark.parametrize(
    "steps",
    [
        ["It is 5. Then 6.", "Wait, no. It is 7.", "Alternatively, 8.", "Let me check: 9."],
        ["We have:", "Wait, that is\nnot so."],  # at the beginning of a line, although no sentence ends before it
        ["I said Wait, and (Wait. Wait) `Wait` and wait. Waiting helps. Let me add."],
        ["```\nWait\n```"],
    ],
)
def test_marker_mode_starts_a_step_at_a_marker_at_the_start_of_a_sentence_or_line(steps: list[str]) -> None:
    assert split_steps("\n".join(steps), StepSettings("marker")) == steps


def test_markers_are_a_setting() -> None:
    assert split_steps("A. Wait. Also b.", StepSettings("marker", markers=["Also"])) == ["A. Wait.", "Also b."]


@pytest.mark.parametrize("thought", ["", " \n", "  A. B.\n\nC \n"])
def test_none_keeps_the_thought_unchanged(thought: str) -> None:
    assert split_steps(thought, StepSettings("none")) == [thought]


PIECES = [
    *" \n\t\u3000\xa0.!?…。．？।؟:()[]「」«»“”„‘$`\\aA1é的と-–*_~|<#\"'", "```", "~~~", "\n\n", ". B", "Wait", "等等",
    "$$", "\\[", "**", "<b>", "</b>", "\n|a|\n|-|\n", "---", "z. B.", "。」",
]  # fmt: skip


@given(st.lists(st.sampled_from(PIECES), max_size=60), st.sampled_from(MODES))
def test_only_white_space_between_steps_is_lost(parts: list[str], mode: StepMode) -> None:
    thought = "".join(parts)
    spans = step_spans(thought, StepSettings(mode))
    edges = [0, *(edge for span in spans for edge in span), len(thought)]
    assert edges == sorted(edges)
    assert all(not thought[a:b].strip() for a, b in zip(edges[::2], edges[1::2], strict=True))
    steps = [thought[a:b] for a, b in spans]
    assert all(step and step == step.strip() for step in steps)
    if any(map(str.isalnum, thought)):
        assert all(any(map(str.isalnum, step)) for step in steps)


@pytest.mark.parametrize("mode", MODES)
def test_nothing_is_lost_in_r1s_thoughts(r1_rows: list[dict[str, str]], mode: StepMode) -> None:
    count = 0
    for row in r1_rows:
        for thought in THINK.findall(row["response"]):
            steps = split_steps(thought, StepSettings(mode))
            count += len(steps)
            assert squeezed("".join(steps)) == squeezed(thought)
    assert count > 10_000


@pytest.mark.parametrize(
    "text", ["This is it. ", "\\[ (a `", "((((", ". ", "`\n", "1. a\n", "$ ", "\\begin{ ", "\\( ", '"a. ', "(a (b. "]
)
@pytest.mark.parametrize("mode", MODES)
def test_long_texts_with_many_openings_are_split_in_linear_time(text: str, mode: StepMode) -> None:
    thought = text * (300_000 // len(text))
    assert squeezed("".join(split_steps(thought, StepSettings(mode)))) == squeezed(thought)


@pytest.mark.parametrize(
    "excerpt", LABELLED + LABELLED_LANGUAGES, ids=lambda excerpt: f"{excerpt['source']}-{excerpt['row']}"
)
def test_the_labels_are_a_split_of_the_excerpt(excerpt: dict[str, Any]) -> None:
    assert squeezed("".join(excerpt["steps"])) == squeezed(excerpt["text"])
    assert all(step in excerpt["text"] for step in excerpt["steps"])
    assert all(0 < turn < len(excerpt["steps"]) for turn in excerpt["turns"])


# Marker mode misses turns with words outside its list ("Let me think about the formula again").
@pytest.mark.parametrize(("mode", "recall"), [("sentence", 0.97), ("paragraph", 0.97), ("marker", 0.85)])
@pytest.mark.parametrize("group", ["dev", "test", "fresh", "r1_math", "r1_puzzles"])
def test_steps_match_the_labels_of_a_reader(mode: StepMode, recall: float, group: str) -> None:
    excerpts = [excerpt for excerpt in LABELLED if group in (excerpt["part"], excerpt["source"])]
    precision, found, _ = precision_and_recall(lambda text: split_steps(text, StepSettings(mode)), excerpts, mode)
    assert precision >= 0.97
    assert found >= recall


# The turns of the fresh part have words outside the list on purpose.
@pytest.mark.parametrize(("mode", "precision", "recall"), [("sentence", 0.98, 0.98), ("marker", 0.9, 0.7)])
@pytest.mark.parametrize("language", ["zh", "ja", "de", "ar"])
def test_steps_match_the_labels_in_other_languages(
    mode: StepMode, precision: float, recall: float, language: str
) -> None:
    excerpts = [excerpt for excerpt in LABELLED_LANGUAGES if excerpt["source"] == language]
    found = precision_and_recall(lambda text: split_steps(text, StepSettings(mode)), excerpts, mode)
    assert found[0] >= precision
    assert found[1] >= recall
    assert mode == "marker" or found[2] >= 130


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        (StepSettings("words"), "data.steps.split"),  # type: ignore[arg-type]
        (StepSettings("marker", markers=[]), "data.steps.markers"),
        (StepSettings(markers=["Wait", " "]), "data.steps.markers"),
    ],
)
def test_impossible_settings_are_named(settings: StepSettings, key: str) -> None:
    with pytest.raises(UserError) as raised:
        settings.check()
    assert raised.value.key == key


def test_the_defaults_work() -> None:
    for mode in ("none", *MODES):
        StepSettings(mode).check()
    assert StepSettings().markers == list(MARKERS)
