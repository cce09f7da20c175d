import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamodules.rows.near_duplicates import DedupIndex, band_length, signature
from datamodules.rows.sources import HeldOut
from tests.conftest import ROOT

PROBLEM = (
    "A farmer has 12 cows and buys 5 more at the market in town. On the way home two of them run away into the woods, "
    "and his neighbour brings one of these back in the evening. How many cows does the farmer have at the end?"
)


def near(one: str, two: str, threshold: float = 0.8) -> bool:
    index = DedupIndex(threshold)
    index.add(signature(one), held_out=True)
    return index.crosses(signature(two), held_out=False)


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("Solve x + 5 = 12", "solve  x+5=12."),
        ("Solve x + 5 = 12", "Please solve: x + 5 = 12!"),
        ("What is 10,000 divided by 4?", "what is 10000 divided by 4"),
        ("Ｓｏｌｖｅ x + 5 = 12", "Solve x + 5 = 12"),
        (PROBLEM, PROBLEM.upper().replace(".", " ;\n")),
        (PROBLEM, PROBLEM.replace("in the evening", "at night")),
        ("请解方程并写出过程", "请解方程,并写出过程。"),
    ],
)
def test_rewordings_are_near_duplicates(one: str, two: str) -> None:
    assert near(one, two)
    assert near(two, one)


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("Solve x + 5 = 12", "Solve x + 6 = 12"),
        ("Solve x + 5 = 12", "Solve x - 5 = 12"),
        ("Solve x + 5 = 12", "Solve x + 12 = 5"),
        ("Find the roots of x^2 - 3x = 0", "Find the roots of x^2 + 3x = 0"),
        ("What is the capital of France?", "What is the capital of Germany?"),
        (PROBLEM, PROBLEM.replace("12", "13")),
        (PROBLEM, "Write a poem about the farmers of this land and their cows in spring."),
    ],
)
def test_other_problems_with_similar_words_are_no_near_duplicates(one: str, two: str) -> None:
    assert not near(one, two, threshold=0.7)


@pytest.mark.parametrize("text", ["", "Hi!", "why not", "\ud800", "?!?"])
def test_texts_without_a_shingle_have_no_near_duplicate(text: str) -> None:
    assert signature(text).size == 0
    assert not near(text, text)


def test_near_duplicates_are_sought_on_the_other_side_only() -> None:
    index, text = DedupIndex(0.8), signature(PROBLEM)
    index.add(text, held_out=False)
    assert not index.crosses(text, held_out=False)
    assert index.crosses(text, held_out=True)


@given(
    st.text(),
    st.sampled_from([str.lower, str.title, lambda text: f"  {text}\n", lambda text: "\t".join(text.split(" "))]),
)
def test_exact_duplicates_are_on_one_side(text: str, change: Callable[[str], str]) -> None:
    """A hash puts instructions that are equal up to case and white space on one side."""
    side = HeldOut(0.5, seed=0)
    changed = change(text)
    if " ".join(changed.lower().split()) == " ".join(text.lower().split()):  # "ß".title() is "Ss"
        assert side({}, text) == side({}, changed)


@given(st.text(max_size=300))
def test_every_text_is_a_near_duplicate_of_itself(text: str) -> None:
    made = signature(text)
    assert made.dtype == np.uint16
    assert near(text, text, threshold=1.0) == (made.size > 0)


@pytest.mark.parametrize("changed", [2, 10, 30])
def test_equal_places_estimate_the_similarity_of_the_shingles(changed: int) -> None:
    """The estimate is near the exact similarity of two texts of 200 words with different ends."""
    words = [f"word{chr(97 + i % 26)}{chr(97 + i // 26)}" for i in range(200)]
    other = words[:-changed] + [f"other{word}" for word in words[-changed:]]
    sets = [{tuple(text[i : i + 3]) for i in range(198)} for text in (words, other)]
    similarity = len(sets[0] & sets[1]) / len(sets[0] | sets[1])
    agreement = float((signature(" ".join(words)) == signature(" ".join(other))).mean())
    assert abs(agreement - similarity) < 0.12


def test_signatures_are_the_same_in_every_process() -> None:
    code = f"from datamodules.rows.near_duplicates import signature; print(signature({PROBLEM!r}).tolist())"
    command = [sys.executable, "-c", code]
    printed = [
        subprocess.run(command, cwd=ROOT, env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True)
        for seed in "12"
    ]
    assert {done.stdout for done in printed} == {f"{signature(PROBLEM).tolist()}\n"}


def test_a_pair_is_found_among_many() -> None:
    rng = np.random.default_rng(0)
    words = [f"{a}{b}{c}" for a in "bdfgk" for b in "aeiou" for c in "lmnrst"]
    texts = [" ".join(rng.choice(words, 30)) for _ in range(3_000)]
    index = DedupIndex(0.8)
    for text in texts:
        index.add(signature(text), held_out=False)
    found = [index.crosses(signature(f"Please: {text.upper()}?"), held_out=True) for text in texts]
    assert all(found)
    assert not any(index.crosses(signature(" ".join(rng.choice(words, 30))), held_out=True) for _ in range(300))


def test_a_pair_is_found_among_rows_of_the_same_template() -> None:
    rng = np.random.default_rng(0)
    words = [f"{a}{b}{c}" for a in "bdfgk" for b in "aeiou" for c in "lmnr"]
    index = DedupIndex(0.9)
    index.add(signature(" ".join([*words, "else"])), held_out=True)
    for _ in range(60):  # later rows with a similarity of about 0.8: they share two or more of the sixteen bands
        changed = set(rng.choice(100, 4, replace=False))
        other = " ".join("other" if i in changed else word for i, word in enumerate(words))
        assert not near(" ".join(words), other, threshold=0.9)
        index.add(signature(other), held_out=True)
    assert index.crosses(signature(" ".join(words)), held_out=False)


@given(st.floats(0.05, 1.0))
def test_bands_find_nine_of_ten_pairs_at_the_threshold_or_have_length_one(threshold: float) -> None:
    band = band_length(threshold)
    assert band == 1 or 1 - (1 - threshold**band) ** (128 // band) >= 0.9
