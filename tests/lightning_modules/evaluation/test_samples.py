"""samples.md shows a few rows of each kind, says how many there are, and no text of a row breaks out of its block."""

import re
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from lightning_modules.evaluation.samples import KINDS, LONGEST, samples_of, shortened
from lightning_modules.evaluation.think_scores import AnsweredRow
from lightning_modules.generation.think_response import ThinkResponse
from visible import visible

LOOP = "Wait, let me check this again. " * 20
REFERENCE = ThinkResponse("<think>12 - 5 = 7</think>x = 7", ("12 - 5 = 7",), "x = 7", True, True)
RIGHT = replace(REFERENCE, tokens=9)
WRONG = replace(RIGHT, text="<think>a</think>x = 8", thoughts=("a",), answer="x = 8")
CUT = replace(RIGHT, text="<think>Hm", thoughts=(), answer="<think>Hm", finished=False, balanced=False, in_thought=True)
LOOPED = replace(CUT, text=f"<think>{LOOP}", answer=f"<think>{LOOP}", tokens=200)
MALFORMED = replace(RIGHT, text="x = 7", thoughts=())
CONTRADICTED = replace(WRONG, thoughts=("So the answer is 7.",))


def rows(*written: ThinkResponse) -> list[AnsweredRow]:
    return [AnsweredRow(k, "all", "Solve x + 5 = 12\n", one, REFERENCE) for k, one in enumerate(written)]


def titles(text: str) -> list[str]:
    return re.findall(r"^#+ .*$", text, re.MULTILINE)


def test_each_kind_has_its_number_and_its_rows() -> None:
    text = samples_of(rows(RIGHT, WRONG, CUT, LOOPED, MALFORMED, CONTRADICTED, RIGHT, RIGHT), 50, 1)
    assert "8 questions: 4 right, 2 wrong, 2 cut off, 1 caught in a loop, 1 malformed, 1 contradicted." in text
    assert titles(text) == [
        "## Step 50",
        "### The first rows, the same at each validation", "#### Row 0 (right)",
        "### Right: 4 of 8 (above: row 0)", "#### Row 4 (right, malformed)",
        "### Wrong: 2 of 8", "#### Row 1 (wrong)",
        "### Cut off: 2 of 8", "#### Row 2 (cut off)",
        "### Caught in a loop: 1 of 8", "#### Row 3 (cut off, caught in a loop)",
        "### Malformed: 1 of 8 (above: row 4)",
        "### Contradicted: 1 of 8", "#### Row 5 (wrong, contradicted)",
    ]  # fmt: skip


def test_the_reason_stands_beside_each_row() -> None:
    text = samples_of(rows(RIGHT, WRONG, CUT, LOOPED, MALFORMED, CONTRADICTED), 0, 9)
    for reason in (
        "right: “x = 7” beside “x = 7”, by the rung: text",
        "wrong: “x = 8” beside “x = 7”, by the rung: number",
        "cut off at 9 tokens, inside a thought",
        "caught in a loop from character 8 of the response on: 20 times “Wait, let me check this again.”",
        "malformed: there is no thought",
        "contradicted: the thoughts name “7",
    ):
        assert f"    {reason}" in text, reason


def test_no_row_is_shown_twice_and_zero_shows_numbers_only() -> None:
    answered = rows(*[CUT, LOOPED, MALFORMED, CONTRADICTED, RIGHT, WRONG] * 5)
    for number in (0, 1, 2, 30, 100):
        found = re.findall(r"^#### Row (\d+) ", samples_of(answered, 0, number), re.MULTILINE)
        assert len(found) == len(set(found)) <= 30
        assert number or not found
        assert number < 30 or len(found) == 30
    assert titles(samples_of(answered, 0, 0)) == ["## Step 0"]


def test_rows_of_one_kind_have_no_other_heading() -> None:
    headings = [one for one in titles(samples_of(rows(RIGHT, RIGHT, RIGHT), 0, 1)) if one.startswith("### ")]
    assert headings[1:] == ["### Right: 3 of 3 (above: row 0)"]


def test_a_long_text_lacks_its_middle_and_says_how_much() -> None:
    text = "b" * LONGEST + "m" * 2_345 + "e" * LONGEST
    short = shortened(text)
    omitted = re.search(r"\n\[… ([\d,]+) characters …\]\n", short)
    assert omitted and int(omitted[1].replace(",", "")) == len(text) - LONGEST
    assert short.startswith("b" * (LONGEST // 2)) and short.endswith("e" * (LONGEST // 2)) and "m" not in short
    assert shortened("x" * LONGEST) == "x" * LONGEST


HOSTILE = st.text(alphabet="`~<>!-#*_[]()|\\&\"' \t\n\r\x0b\x1b\u2028abc123=\ufffd", max_size=60) | st.sampled_from(
    ["```\n# b", "</pre></code><script>alert(1)</script>", "~~~", "\n\n<div>\n", "1. a\n\n   - b", "<!--", "", "\n", "​"]
)


@settings(deadline=None)  # the first text that needs Math-Verify starts a process
@given(HOSTILE, HOSTILE, HOSTILE, st.booleans())
def test_no_text_breaks_out_of_its_block(prompt: str, text: str, reference: str, finished: bool) -> None:
    """As CommonMark reads it: nothing but headings, paragraphs of ours and blocks of code, which hold the texts."""
    written = ThinkResponse(text, (text,), text, finished, True)
    row = AnsweredRow(0, prompt, prompt, written, replace(written, text=reference, answer=reference))
    tokens = MarkdownIt("commonmark").parse(samples_of([row], 0, 2))
    assert {one.type for one in tokens} <= {
        "heading_open", "heading_close", "paragraph_open", "paragraph_close", "inline", "code_block",
    }  # fmt: skip
    ours = [one.content for one in tokens if one.type == "inline"]
    allowed = rf"Step 0|1 questions: .*|The first rows.*|Row 0 \([a-z, ]*\)|\w+:|({'|'.join(KINDS)}): 1 of 1.*"
    assert all(re.fullmatch(allowed, one, re.IGNORECASE) for one in ours)
    blocks = [one.content for one in tokens if one.type == "code_block"]
    for given_text in (prompt, text, reference):
        shown = visible(given_text, lines=True)
        assert not shown.strip() or any(shown.strip() in block for block in blocks)
