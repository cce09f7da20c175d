"""The settings of each source of a mix, and their defaults from `data`."""

import pytest

from datamodules.layouts.columns import Candidates, Columns
from datamodules.prepare.mix import MixedSource, check_mix
from datamodules.text.malformed import MalformedPolicy
from datamodules.text.steps import StepSettings
from datamodules.text.tags import Tags
from errors import UserError
from tests.conftest import TEMPLATE

BOTH: dict[str, int | None] = {"train": 10, "val": 10}


def test_null_takes_the_setting_of_data_and_a_value_replaces_it() -> None:
    defaults = (
        Columns(None, "q", "a"),
        Candidates("c"),
        Tags("[", "]"),
        "strict",
        {"no_thought": "keep"},
        {"language": "EN"},
    )
    same = MixedSource("x").with_defaults(*defaults)  # type: ignore[arg-type]
    own = MixedSource(
        "x",
        columns=Columns(),
        candidates=Candidates(),
        tags=Tags(),
        malformed="keep",
        malformed_overrides={},
        filters={},
    ).with_defaults(*defaults)  # type: ignore[arg-type]
    common = TEMPLATE, StepSettings(), 64, "drop"
    config = same.processing(*common)  # type: ignore[arg-type]
    assert (config.columns, config.tags, config.filters) == (
        Columns(None, "q", "a"),
        Tags("[", "]"),
        {"language": "EN"},
    )
    assert config.malformed == MalformedPolicy.of("strict", {"no_thought": "keep"})
    config = own.processing(*common)  # type: ignore[arg-type]
    assert (config.columns, config.tags, config.filters) == (Columns(), Tags(), {})
    assert config.malformed == MalformedPolicy.of("keep")


@pytest.mark.parametrize(
    ("mix", "wanted", "message"),
    [
        ([], BOTH, "names no source"),
        ([MixedSource("a", weight=1.0), MixedSource("b")], BOTH, "some have none"),
        ([MixedSource("builtin")], {"val": None}, r"data\.val_rows: 'null' asks for all rows of an endless source"),
        ([MixedSource("a", tags=Tags("x", "x"))], BOTH, r"data\.source_tags"),
        ([MixedSource("a", filters={"x": []})], BOTH, r"data\.filters\.x"),
        ([MixedSource("a", malformed_overrides={"nestd": "keep"})], BOTH, r"Did you mean nested\?"),
    ],
)
def test_an_impossible_mix_is_refused(mix: list[MixedSource], wanted: dict[str, int | None], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_mix(mix, wanted)


def test_a_possible_mix_is_accepted() -> None:
    check_mix([MixedSource("a", weight=1.0), MixedSource("builtin", weight=0.5)], BOTH)
    check_mix([MixedSource("a"), MixedSource("b")], {"train": None, "val": None})
