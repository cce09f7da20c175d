"""The dial for malformed responses, its overrides, and the notes and reasons that they give."""

from typing import get_args

import pytest

from datamodules.text import malformed
from datamodules.text.malformed import SHAPES, Dial, MalformedPolicy, MalformedResponse, ShapesFound
from errors import UserError
from tests.conftest import ROOT


def test_the_default_repairs_certain_cases_and_drops_the_rest() -> None:
    assert MalformedPolicy() == MalformedPolicy.of("repair")
    assert MalformedPolicy().actions == {
        "missing_open": "repair", "unclosed": "drop", "no_thought": "drop", "empty_thought": "drop",
        "no_answer": "drop", "text_before": "keep", "lone_close": "drop", "nested": "drop", "tags_in_code": "keep",
        "windows_lines": "keep", "odd_lines": "keep", "damaged": "drop", "repetition": "drop",
    }  # fmt: skip


def test_strict_drops_every_shape_except_line_ends() -> None:
    kept = {shape for shape, action in MalformedPolicy.of("strict").actions.items() if action != "drop"}
    assert kept == {"windows_lines", "odd_lines"}


def test_keep_drops_nothing() -> None:
    assert "drop" not in MalformedPolicy.of("keep").actions.values()


def test_every_setting_of_the_dial_gives_each_shape_an_action_that_it_can_have() -> None:
    for dial in get_args(Dial):
        for name, action in MalformedPolicy.of(dial).actions.items():
            assert action in SHAPES[name].actions


def test_an_override_changes_one_shape() -> None:
    policy = MalformedPolicy.of("strict", {"no_thought": "keep"})
    assert policy.actions == MalformedPolicy.of("strict").actions | {"no_thought": "keep"}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"no_thougt": "keep"},
         "data.malformed_overrides: 'no_thougt' is not a malformed shape. Did you mean no_thought?"),
        ({"x": "keep"}, "data.malformed_overrides: 'x' is not a malformed shape. Choose among missing_open, "),
        ({"no_thought": "repair"},
         "data.malformed_overrides.no_thought: 'repair' is not an action for this shape. Choose drop or keep."),
        ({"missing_open": "keep"},
         "data.malformed_overrides.missing_open: 'keep' is not an action for this shape. Choose drop or repair."),
        ({"nested": "mend"},
         "data.malformed_overrides.nested: 'mend' is not an action for this shape. Choose drop or repair or keep."),
    ],
)  # fmt: skip
def test_a_wrong_override_is_refused_in_one_line(overrides: dict[str, str], message: str) -> None:
    with pytest.raises(UserError) as refused:
        MalformedPolicy.of("repair", overrides)
    assert str(refused.value).startswith(message) and "\n" not in str(refused.value)


def test_a_dropped_shape_names_the_setting_and_a_handled_one_is_noted_once() -> None:
    shapes = ShapesFound(MalformedPolicy.of("repair", {"nested": "repair"}))
    assert [shapes.handle("nested"), shapes.handle("text_before"), shapes.handle("nested")] == [
        "repair", "keep", "repair"
    ]  # fmt: skip
    assert shapes.notes == ("think block inside a think block (repaired)", "text before the first think block (kept)")
    with pytest.raises(MalformedResponse, match=r"^no think block \(data\.malformed_overrides\.no_thought\)$"):
        shapes.handle("no_thought")


def table(text: str) -> dict[str, list[str]]:
    """The lines of the table of shapes in a text: name -> actions for strict, repair, keep, and the other actions."""
    lines = [
        [cell.strip(" `") for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| `")
    ]
    return {line[0]: line[-4:] for line in lines if line[0] in SHAPES}


@pytest.mark.parametrize(
    "text", [malformed.__doc__ or "", (ROOT / "docs" / "data.md").read_text()], ids=["code", "docs"]
)
def test_the_documented_table_is_the_policy(text: str) -> None:
    assert table(text) == {
        name: [shape.strict, shape.repair, shape.keep, ", ".join(shape.others)] for name, shape in SHAPES.items()
    }
