"""Evaluations and samples, also damaged ones."""

from pathlib import Path

from commands.run_report.answers import LONGEST, read_evaluation, read_samples, shortened
from tests.commands.run_report.conftest import SAMPLES, evaluation


def test_an_evaluation_has_its_answers_and_says_whether_the_base_gave_them(tmp_path: Path) -> None:
    for checkpoint, of_base in (("none: the base before training", True), ("5b12", False)):
        evaluation(tmp_path / "e.jsonl", checkpoint, {"x": True, "y": False}, "text")
        found, fault = read_evaluation(tmp_path / "e.jsonl")
        assert found is not None and fault is None
        assert found.of_base == of_base and found.verdicts() == {"x": [True], "y": [False]}


def test_a_line_that_is_cut_is_left_out_and_damaged_ones_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    evaluation(path, "a", {"x": True, "y": False}, "text")
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"id": "z", "sam')
    found, fault = read_evaluation(path)
    assert found is not None and len(found.answers) == 2 and fault is None
    path.write_bytes(whole + b'{"id": 7}\n\xff\xfe\n[]\n{"id": "z", "sample": 0, "right": 1}\n')
    found, fault = read_evaluation(path)
    assert found is not None and len(found.answers) == 2
    assert fault == "evaluations/e.jsonl has 4 damaged lines, which are left out"
    path.write_bytes(b"[1]\n" + whole)
    assert read_evaluation(path) == (None, "evaluations/e.jsonl is not the file of an evaluation")


def test_samples_have_their_texts_and_their_order() -> None:
    first, last = read_samples(SAMPLES)
    assert (first.step, first.verdict, first.written) == (0, "wrong", "3")
    assert (last.step, last.written, last.reference) == (20, "<think>One more.</think>\n\n2", "2")


def test_a_text_that_looks_like_a_heading_stays_text_and_a_later_validation_of_a_step_counts() -> None:
    again = SAMPLES.replace("    3\n", "    ## Step 7\n")
    first, last = read_samples(SAMPLES + again)
    assert first.written == "## Step 7" and last.step == 20
    assert read_samples(SAMPLES[: SAMPLES.index("Written")]) == [] and read_samples("\0\n## Step 1\n:\n") == []


def test_a_long_text_says_how_much_is_left_out() -> None:
    assert shortened("a" * LONGEST) == "a" * LONGEST
    assert shortened("a" * (LONGEST + 1_500)).endswith("a… (1,500 more characters)")
