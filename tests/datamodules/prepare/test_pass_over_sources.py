from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

import pytest

from datamodules.prepare import pass_over_sources as module
from datamodules.prepare.pass_over_sources import Part, PassOverSources, Quotas
from datamodules.rows.files import Row
from datamodules.rows.sources import HeldOut, Source, open_source
from datamodules.tokens.process import ProcessedExample, ProcessingConfig
from datamodules.tokens.tokenizer import ThinkTokenizer
from errors import UserError
from tests.conftest import TEMPLATE

ALL: Quotas = {"train": None, "val": None}
WORDS = "one two three four five six seven eight nine ten eleven twelve".split()


def part(name: str, count: int, weight: float | None = None, **row: Any) -> Part:
    def rows() -> Iterator[Row]:
        for i in range(count):
            yield {"instruction": f"{name} asks {i}", "response": f"<think>A {i}. B.</think>c {i}", "id": i, **row}

    return Part(Source(name, name, HeldOut(0.25, 0), rows), ProcessingConfig(TEMPLATE), weight)


def sources(survey: PassOverSources) -> list[str]:
    return [source for _, source, split in survey if split is not None]


def test_it_ends_when_every_split_has_its_rows(tiny_tokenizer: ThinkTokenizer) -> None:
    endless = Part(open_source("builtin", None, "train", 0.1, 0), ProcessingConfig(TEMPLATE))
    survey = PassOverSources([endless], tiny_tokenizer.encoder, {"train": 300, "val": 20}, 0.8)
    assert len(list(survey)) == 320
    assert survey.report.kept == {"train": 300, "val": 20}
    assert survey.report.read < 1_600


def test_test_rows_come_after_those_of_validation(tiny_tokenizer: ThinkTokenizer) -> None:
    def ids(quotas: Quotas) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for outcome, _, split in PassOverSources([part("a", 400)], tiny_tokenizer.encoder, quotas):
            found.setdefault(str(split), []).append(outcome.row_id)
        return found

    one, two = ids({"train": 10, "val": 10}), ids({"val": 10, "test": 10})
    assert one["val"] == two["val"]
    assert not set(two["test"]) & (set(two["val"]) | set(one["train"]))


def test_rows_of_a_side_that_is_full_are_neither_kept_nor_left_out(tiny_tokenizer: ThinkTokenizer) -> None:
    survey = PassOverSources([part("a", 600)], tiny_tokenizer.encoder, {"train": None, "val": 3})
    outcomes = list(survey)
    assert survey.report.read == 600
    assert len(outcomes) == sum(survey.report.kept.values()) < 600
    assert not survey.report.dropped


def test_any_number_of_processes_gives_the_same(
    tiny_tokenizer: ThinkTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "AT_ONCE", 16)
    monkeypatch.setattr(module, "ALONE", 1)
    parts = [part("a", 300, 1.0), part("b", 300, 2.0)]

    def run(num_proc: int) -> tuple[list[tuple[str, str, str | None, list[int]]], dict[str, Any]]:
        survey = PassOverSources(parts, tiny_tokenizer.encoder, {"train": 150, "val": 40}, 0.8, num_proc)
        return [(o.row_id, s, split, o.ids.tolist()) for o, s, split in survey], asdict(survey.report)

    assert run(1) == run(2)


def test_weights_are_those_of_the_rows_kept(tiny_tokenizer: ThinkTokenizer) -> None:
    """However many of one source are left out, and only while every source has rows."""
    short = part("short", 2_000, 4.0)
    long = part("long", 2_000, 1.0)
    half = replace(long, recipe=replace(long.recipe, where={"id": list(range(0, 2_000, 2))}))
    found = sources(PassOverSources([half, short], tiny_tokenizer.encoder, {"train": 500, "val": 100}))
    assert Counter(found) == {"long": 120, "short": 480}
    assert Counter(found[:50]) == {"long": 10, "short": 40}
    survey = PassOverSources([part("few", 30, 1.0), part("many", 2_000, 3.0)], tiny_tokenizer.encoder, ALL)
    assert Counter(sources(survey)) == {"few": 30, "many": 90}


def test_without_weights_each_source_gives_all(tiny_tokenizer: ThinkTokenizer) -> None:
    survey = PassOverSources([part("few", 3), part("many", 70)], tiny_tokenizer.encoder, ALL)
    assert Counter(sources(survey)) == {"few": 3, "many": 70} == survey.report.by_source


def test_near_duplicates_do_not_cross_the_border_and_are_counted(tiny_tokenizer: ThinkTokenizer) -> None:
    text = " ".join(WORDS * 3)

    def rows() -> Iterator[Row]:
        for i in range(40):
            first = "Please: " if i % 2 else ""
            yield {"instruction": f"{first}{text}{'!' * (i + 1)}", "response": "<think>a</think>b", "id": i}

    def kept(near: float | None, comparable: bool = True) -> tuple[dict[str, int], dict[str, int]]:
        source = Source("x", "x", lambda row, _: row["id"] % 4 == 0, rows, comparable)
        survey = PassOverSources([Part(source, ProcessingConfig(TEMPLATE))], tiny_tokenizer.encoder, ALL, near)
        list(survey)
        return survey.report.kept, survey.report.dropped

    assert kept(None) == kept(0.8, comparable=False) == ({"train": 30, "val": 10}, {})
    assert kept(0.8) == ({"train": 0, "val": 10}, {"near duplicate of a held-out instruction": 30})


def test_rows_without_an_instruction_are_counted(tiny_tokenizer: ThinkTokenizer) -> None:
    survey = PassOverSources([part("a", 3, instruction=None)], tiny_tokenizer.encoder, ALL)
    reason = "instruction or response is not a text"
    assert [(outcome.reason, split) for outcome, _, split in survey] == [(reason, None)] * 3
    assert survey.report.dropped_ids == {reason: ["0", "1", "2"]}


def test_a_process_that_dies_is_said(tiny_tokenizer: ThinkTokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ALONE", 0)
    monkeypatch.setattr(module, "_examine", _die)
    with pytest.raises(UserError, match=r"data\.num_proc: '2' .*lack of memory.*Give a smaller number"):
        list(PassOverSources([part("a", 300)], tiny_tokenizer.encoder, ALL, num_proc=2))


def _die(*_: object) -> list[ProcessedExample]:
    import os

    os._exit(9)


def test_an_endless_source_of_which_nothing_is_kept_comes_to_an_end(tiny_tokenizer: ThinkTokenizer) -> None:
    source = open_source("builtin", None, "train", 0.1, 0)
    part = Part(source, ProcessingConfig(TEMPLATE, where={"difficulty": ["gigantic"]}))
    with pytest.raises(UserError, match=r"data\.where: .*where: difficulty"):
        list(PassOverSources([part], tiny_tokenizer.encoder, {"train": 3, "val": 3}))
