import pytest

from lightning_modules.evaluation.summary import label, ordered, print_table, shown, stage_figures, styled

FIGURES = {
    "loss": 0.5, "perplexity": 1.6487, "loss_thought": 0.25, "answered": 8.0, "think_format": 0.995, "thoughts": 3.14,
    "answer_match": 0.9, "answer_match/very easy": 1.0, "answered/very easy": 3.0,
}  # fmt: skip


def test_the_table_shows_every_figure_and_says_where_one_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    print_table({"before": {"loss": 2.0}, "after": FIGURES})
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["loss", "per", "token", "2.0000", "0.5000"] in lines
    assert ["well-formed", "thinking", "-", "99.5", "%"] in lines
    assert ["very", "easy", "(3)", "-", "100.0", "%"] in lines
    assert ["95", "%", "interval", "-", "52.9", "to", "97.8", "%"] in lines  # of 7 of 8
    assert any("8 held-out rows answered" in " ".join(line) for line in lines)


def test_the_title_tells_questions_from_rows_that_share_them(capsys: pytest.CaptureFixture[str]) -> None:
    print_table({"before": {"loss": 2.0}, "after": FIGURES | {"answered": 30.0, "answered_rows": 53.0}})
    assert "53 held-out rows, 30 different questions answered" in capsys.readouterr().out
    print_table({"before": FIGURES | {"answered": 9.0}, "after": FIGURES})
    assert "8 held-out rows answered (before: 9)" in capsys.readouterr().out


def test_figures_stand_in_order_and_none_is_lost() -> None:
    names = ordered({*FIGURES, "answer_match/zebra", "answer_match/hard", "answer_match/easy"})
    assert names == [
        *("loss", "perplexity", "loss_thought", "think_format", "thoughts", "answer_match"),
        *("answer_match/very easy", "answer_match/easy", "answer_match/hard", "answer_match/zebra"),
    ]
    assert set(FIGURES) - set(names) == {"answered", "answered/very easy"}  # in the title and in a label
    assert label("loss_thought", FIGURES) == "  thought"
    assert [shown("thoughts", 3.14), shown("loss", 0.5), shown("loss", None)] == ["3.1", "0.5000", "-"]


def test_only_figures_of_the_stage_are_taken() -> None:
    assert stage_figures({"val/loss": 1, "train/loss": 2, "val/answer_match/easy": 0.5}, "val") == {
        "loss": 1.0,
        "answer_match/easy": 0.5,
    }


def test_thoughts_are_dimmed_on_a_terminal_only() -> None:
    text = "<think>a\nb</think><think>c</think>\n\nx = 7"
    assert styled(text, terminal=False) == text
    assert styled(text, terminal=True) == "\033[2m<think>a\nb</think>\033[0m\033[2m<think>c</think>\033[0m\n\nx = 7"


def test_baselines_and_letters_stand_beside_the_right_answers(capsys: pytest.CaptureFixture[str]) -> None:
    letters = {"answer_letter/none": 0.1, "answer_letter/A": 0.81, "answer_letter/B": 0.09, "reference_letter/A": 0.5}
    figures = FIGURES | letters | {"cut": 0.25, "baseline_frequent": 0.5, "baseline_random": 0.2}
    print_table({"after": figures})
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    first = lines.index("right answers 90.0 %")
    assert lines[first + 2 :][:6] == [
        "always most frequent 50.0 %", "random choice 20.0 %", "very easy (3) 100.0 %",
        "answers (A), right 50 % 81.0 %", "answers (B), right 0 % 9.0 %", "answers without letter 10.0 %",
    ]  # fmt: skip
    assert "cut off 25.0 %" in lines
