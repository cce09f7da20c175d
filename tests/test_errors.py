import pytest

from errors import UserError, did_you_mean, suggest


def test_the_text_has_key_value_problem_and_way_out() -> None:
    error = UserError("data.source", "rows.csv", "is of no known format", "give a .jsonl file")
    assert str(error) == "data.source: 'rows.csv' is of no known format. Give a .jsonl file."


def test_a_question_keeps_its_mark_and_a_missing_value_is_not_shown() -> None:
    assert str(UserError("model.lr", None, "there is no such setting", "did you mean model.optim.lr?")) == (
        "model.lr: there is no such setting. Did you mean model.optim.lr?"
    )


def test_the_nearest_word_is_found_by_the_whole_or_by_its_last_part() -> None:
    known = ["model.optim.lr", "model.lora.rank", "trainer.max_epochs"]
    assert did_you_mean("model.lora.rnak", known) == "model.lora.rank"
    assert did_you_mean("train.max_epoch", known) == "trainer.max_epochs"
    assert did_you_mean("rank", known) == "model.lora.rank"
    assert did_you_mean("banana", known) is None
    assert suggest("rank", known, "see the docs") == "did you mean model.lora.rank?"
    assert suggest("banana", known, "see the docs") == "see the docs"


@pytest.mark.parametrize(
    "fix", ["python cli.py fit --help", "--run FILE", "hf download x", "configs/demo.yaml", "_x y"]
)
def test_a_command_or_a_path_is_not_capitalized(fix: str) -> None:
    assert str(UserError("key", None, "is wrong", fix)) == f"key: is wrong. {fix}."


def test_a_long_value_is_cut() -> None:
    line = str(UserError("key", "x" * 1_000_000, "is too long", "give less"))
    assert len(line) < 300 and line.endswith("is too long. Give less.")
