from pathlib import Path
from typing import Any

import pytest

from datamodules.magpie import MagpieDataModule
from datamodules.same_rows import go_on_with_template
from datamodules.text.segments import Role, Segment
from datamodules.text.steps import StepSettings
from errors import UserError
from tests.datamodules.test_magpie import data


def rows_file(folder: Path, answer: str = "b") -> Path:
    path = folder / f"rows-{answer}.jsonl"
    row = '{{"instruction": "Ask {}", "response": "<think>We add both numbers. Then we check it.{}</think>{}"}}\n'
    path.write_text("".join(row.format(k, " More." * (k % 20), answer) for k in range(60)))
    return path


def prepared(tmp_path: Path, **settings: Any) -> MagpieDataModule:
    few: dict[str, Any] = {"train_rows": 20, "val_rows": 5, "heldout_ratio": 0.3, "steps": StepSettings(split="none")}
    return data(tmp_path / "cache", **few | settings)


def test_equal_rows_are_accepted_from_a_source_that_moved(tmp_path: Path) -> None:
    saved = prepared(tmp_path, source=str(rows_file(tmp_path))).identity()
    moved = tmp_path / "moved.jsonl"
    moved.write_text(rows_file(tmp_path).read_text())
    now = prepared(tmp_path, source=str(moved))
    assert now.identity()["data.source"] != saved["data.source"]
    now.check_same_rows(saved)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"steps": StepSettings(split="sentence")}, "data.steps.split: 'sentence' differs from the checkpoint's, none"),
        ({"max_length": 60}, "data.max_length: '60' differs from the checkpoint's, 512. Set data.max_length to 512"),
        ({"seed": 4}, "data.seed: '4' differs from the checkpoint's, 0"),
        ({"train_rows": 10}, "data.train_rows: '10'"),
        ({"template": "Q: {{ instruction }} A: "}, "data.template"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)  # fmt: skip
def test_other_rows_are_refused_with_the_setting_that_changed(
    change: dict[str, Any], words: str, tmp_path: Path
) -> None:
    source = str(rows_file(tmp_path))
    saved = prepared(tmp_path, source=source).identity()
    with pytest.raises(UserError) as refused:
        prepared(tmp_path, source=source, **change).check_same_rows(saved)
    assert words in str(refused.value)


def test_a_checkpoint_of_a_time_before_a_setting_names_the_setting_that_changed(tmp_path: Path) -> None:
    source = str(rows_file(tmp_path))
    saved = prepared(tmp_path, source=source).identity()
    del saved["data.turns"], saved["data.history_reasoning"]
    now = prepared(tmp_path, source=source, max_length=60)
    with pytest.raises(UserError, match=r"data\.max_length: '60' differs"):
        now.check_same_rows(saved)
    assert now.seen_warning(saved) is None


def test_a_changed_file_is_refused_under_unchanged_settings(tmp_path: Path) -> None:
    source = rows_file(tmp_path)
    saved = prepared(tmp_path, source=str(source)).identity()
    source.write_text(rows_file(tmp_path, "c").read_text())
    with pytest.raises(UserError, match=r"data\.source: .* holds other rows than when the checkpoint was written"):
        prepared(tmp_path, source=str(source)).check_same_rows(saved)


def test_a_run_keeps_the_template_of_a_file_that_was_edited(tmp_path: Path) -> None:
    source, file = str(rows_file(tmp_path)), tmp_path / "mine.jinja"
    file.write_text("Q: {{ instruction }}")
    saved = prepared(tmp_path, source=source, template=str(file)).identity()
    file.write_text("Changed: {{ instruction }}")
    again = data(tmp_path / "cache", source=source, template=str(file), train_rows=20, val_rows=5, heldout_ratio=0.3)
    go_on_with_template(again, saved)
    assert again.template.parts[0] == Segment(Role.PROMPT, "Q: ")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, None),
        ({"test_rows": 3}, None),
        ({"train_rows": 4}, None),
        ({"val_rows": 9}, None),
        ({"val_rows": None}, None),
        ({"val_rows": 4}, "data.val_rows is 4, and was 5 in the run"),
        ({"seed": 1}, "data.seed is 1, and was 0 in the run"),
        ({"heldout_ratio": 0.4}, "data.heldout_ratio is 0.4, and was 0.3"),
        ({"near_duplicate_threshold": None}, "data.near_duplicate_threshold is null, and was 0.8"),
    ],
)
def test_a_test_whose_rows_a_run_may_have_seen_says_so(
    tmp_path: Path, change: dict[str, Any], words: str | None
) -> None:
    source = str(rows_file(tmp_path))
    saved = prepared(tmp_path, source=source).identity()
    warning = prepared(tmp_path, **{"source": source} | change).seen_warning(saved)
    assert warning is None if words is None else words in str(warning)
