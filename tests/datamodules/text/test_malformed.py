"""The dial for malformed responses, its overrides, and the notes and reasons that they give."""

from typing import get_args

import pytest

from datamodules.text import malformed
from datamodules.text.malformed import SHAPES, Dial, Fault, MalformedPolicy, MalformedResponse, ShapesFound
from errors import UserError
from tests.conftest import ROOT


def test_the_default_repairs_certain_cases_and_drops_the_rest() -> None:
    assert MalformedPolicy() == MalformedPolicy.of("repair")
    assert MalformedPolicy().actions == {
        "missing_open": "repair", "unclosed": "drop", "no_thought": "drop", "empty_thought": "drop",
        "no_answer": "drop", "text_before": "keep", "lone_close": "drop", "nested": "drop", "tags_in_code": "keep",
        "wrapped_answer": "keep", "zero_width": "keep", "windows_lines": "keep", "odd_lines": "keep", "damaged": "drop",
        "repetition": "drop",
    }  # fmt: skip


def test_last_close_differs_from_repair_in_what_stands_before_the_last_closing_tag() -> None:
    changed = {"lone_close": "last_close", "nested": "last_close", "text_before": "repair"}
    assert MalformedPolicy.of("last_close").actions == MalformedPolicy.of("repair").actions | changed
    assert MalformedPolicy.of("last_close") == MalformedPolicy.of("repair", changed)


def test_strict_drops_every_shape_that_affects_the_blocks() -> None:
    kept = {shape for shape, action in MalformedPolicy.of("strict").actions.items() if action != "drop"}
    assert kept == {"windows_lines", "odd_lines", "wrapped_answer", "zero_width"}


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
         "data.malformed_overrides.nested: 'mend' is not an action for this shape. Choose drop or repair or "
         "last_close or keep."),
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
    assert shapes.handle("no_thought", 3) == shapes.handle("no_thought", 5) == "keep"
    with pytest.raises(
        MalformedResponse, match=r"^no think block \(data\.malformed_overrides\.no_thought\)$"
    ) as refused:
        shapes.raise_faults()
    assert [fault.at for fault in refused.value.faults] == [3]
    assert len(shapes.notes) == 2


def test_a_reason_alone_is_a_fault_without_a_place() -> None:
    raised = MalformedResponse("no text", Fault("cut", 3))
    assert raised.faults == (Fault("no text", None), Fault("cut", 3)) and str(raised) == "no text; cut"


def test_every_dropped_shape_is_named_and_goes_on_as_keep_has_it() -> None:
    shapes = ShapesFound(MalformedPolicy(dict.fromkeys(SHAPES, "drop")))
    shapes.raise_faults()
    assert [shapes.handle(name) for name in SHAPES] == [shape.keep for shape in SHAPES.values()]
    with pytest.raises(MalformedResponse) as refused:
        shapes.raise_faults()
    assert [fault.reason for fault in refused.value.faults] == [
        f"{shape.description} (data.malformed_overrides.{name})" for name, shape in SHAPES.items()
    ]
    assert shapes.notes == ()


def table(text: str) -> dict[str, list[str]]:
    """The lines of the table of shapes in a text: name -> actions for the four dials, and the other actions."""
    lines = [
        [cell.strip(" `") for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| `")
    ]
    return {line[0]: line[-5:] for line in lines if line[0] in SHAPES}


@pytest.mark.parametrize(
    "text", [malformed.__doc__ or "", (ROOT / "docs" / "data.md").read_text()], ids=["code", "docs"]
)
def test_the_documented_table_is_the_policy(text: str) -> None:
    assert table(text) == {
        name: [shape.strict, shape.repair, shape.last_close, shape.keep, ", ".join(shape.others)]
        for name, shape in SHAPES.items()
    }
