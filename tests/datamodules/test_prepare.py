import json
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from datamodules import prepare as module
from datamodules.prepare import Quotas, Recipe, prepare
from datamodules.render import Role, Template
from datamodules.sources import Source, open_source
from datamodules.thoughts import Columns
from datamodules.token_rows import TokenRows
from datamodules.tokenize import ThinkTokenizer
from errors import UserError
from tests.conftest import TINY

TEMPLATE = Template("### Instruction: {instruction}\n### Response: {response}")


@pytest.fixture(scope="module")
def tokenizer() -> ThinkTokenizer:
    return ThinkTokenizer.load(str(TINY))


def recipe(max_length: int = 512) -> Recipe:
    return Recipe(TEMPLATE, "multi", max_length, Columns())


def written(path: Path, rows: list[dict[str, object]]) -> Source:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return open_source(str(path), None, "train", 0.25, 0)


def rows(count: int, **more: object) -> list[dict[str, object]]:
    return [
        {"instruction": f"Ask {i}", "response": f"<think>A {i}. B.</think>c {i}", "conversation_id": f"r{i}", **more}
        for i in range(count)
    ]


def test_prepared_rows_are_what_the_tokenizer_gives(tmp_path: Path, tokenizer: ThinkTokenizer) -> None:
    folder, report = prepare(
        written(tmp_path / "a.jsonl", rows(700)), tokenizer, recipe(), {"train": None, "val": None}, tmp_path / "cache"
    )
    train, val = TokenRows(folder / "train.arrow"), TokenRows(folder / "val.arrow")
    assert len(train) == report.kept["train"] > 500  # more than one record batch
    assert len(train) + len(val) == report.read == 700
    assert train.lengths.sum() == report.tokens["train"]
    last = train[len(train) - 1]
    assert tokenizer.decode(last.ids.tolist()).endswith(f"c {last.row_id[1:]}<|im_end|>")
    assert last.ids.dtype == np.int32
    assert last.roles.dtype == np.int8
    assert (train.supervised[-1], train.lengths[-1]) == ((last.roles != Role.PROMPT).sum(), len(last.ids))
    assert last.row == len(train) - 1


def test_preparation_stops_when_it_has_the_rows_asked_for(tmp_path: Path, tokenizer: ThinkTokenizer) -> None:
    endless = open_source("builtin", None, "train", 0.1, 0)
    _, report = prepare(endless, tokenizer, recipe(), {"train": 300, "val": 20}, tmp_path)
    assert report.kept == {"train": 300, "val": 20}
    assert report.read < 1_600


def test_test_rows_come_after_those_of_validation(tmp_path: Path, tokenizer: ThinkTokenizer) -> None:
    source = written(tmp_path / "a.jsonl", rows(200))
    one, _ = prepare(source, tokenizer, recipe(), {"train": 10, "val": 10}, tmp_path / "cache")
    two, _ = prepare(source, tokenizer, recipe(), {"val": 10, "test": 10}, tmp_path / "cache")

    def ids(path: Path) -> list[str]:
        table = TokenRows(path)
        return [table[i].row_id for i in range(len(table))]

    assert ids(one / "val.arrow") == ids(two / "val.arrow")
    assert not set(ids(two / "test.arrow")) & (set(ids(two / "val.arrow")) | set(ids(one / "train.arrow")))


def test_what_is_left_out_is_counted_with_its_reason(tmp_path: Path, tokenizer: ThinkTokenizer) -> None:
    bad: list[dict[str, object]] = [
        {"instruction": "a", "response": "<think>never"},
        {"instruction": "b", "response": ""},
        {"instruction": "c", "response": "x " * 600},
        {"instruction": "d", "response": "said aloud</think>fine"},
    ]
    source = written(tmp_path / "a.jsonl", [*rows(40), *[row | {"conversation_id": "bad"} for row in bad]])
    _, report = prepare(source, tokenizer, recipe(), {"train": None, "val": None}, tmp_path / "cache")
    assert report.dropped == {"think block never closed": 1, "empty response": 1, "longer than data.max_length": 1}
    assert report.repaired == {"repaired: no opening tag": 1}
    assert sum(report.kept.values()) == 41
    assert report.within["512"] == 41
    assert report.within["2048"] == report.tokenized == 42
    assert any("1 longer than data.max_length" in line for line in report.lines(512))


def test_a_second_time_costs_nothing_and_any_change_counts(
    tmp_path: Path, tokenizer: ThinkTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, quotas, cache = written(tmp_path / "a.jsonl", rows(40)), Quotas(train=None, val=None), tmp_path / "cache"
    first, report = prepare(source, tokenizer, recipe(), quotas, cache)
    monkeypatch.setattr(module, "_Preparation", lambda *_: pytest.fail("prepared again"))
    assert prepare(source, tokenizer, recipe(), quotas, cache) == (first, report)
    monkeypatch.undo()
    others = [
        prepare(source, tokenizer, recipe(256), quotas, cache)[0],
        prepare(source, tokenizer, Recipe(TEMPLATE, "single", 512, Columns()), quotas, cache)[0],
        prepare(source, tokenizer, recipe(), {"train": 5, "val": None}, cache)[0],
        prepare(written(tmp_path / "a.jsonl", rows(41)), tokenizer, recipe(), quotas, cache)[0],
    ]
    assert len({first, *others}) == 5


def test_a_preparation_that_breaks_off_leaves_nothing(tmp_path: Path, tokenizer: ThinkTokenizer) -> None:
    def broken() -> object:
        yield from islice(rows(2_000), 1_000)
        raise KeyboardInterrupt

    source = Source("x", "x", lambda row, _: row["conversation_id"].endswith("7"), broken)  # type: ignore[arg-type]
    with pytest.raises(KeyboardInterrupt):
        prepare(source, tokenizer, recipe(), {"train": None, "val": None}, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (rows(3, response="<think>never"), r"leaves no row for train of 3 read \(3 think block never closed\)"),
        (rows(40, response="x " * 600), r"longer than data.max_length\). Raise data.max_length \(512\)"),
        ([{"question": "a", "solution": "b"}], r"data.columns: 'instruction and response' is not in the data"),
    ],
)
def test_data_that_leaves_nothing_is_refused(
    tmp_path: Path, tokenizer: ThinkTokenizer, data: list[dict[str, object]], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        prepare(
            written(tmp_path / "a.jsonl", data), tokenizer, recipe(), {"train": None, "val": None}, tmp_path / "cache"
        )


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, tokenizer: ThinkTokenizer) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"data.cache_dir"):
        prepare(
            written(tmp_path / "a.jsonl", rows(40)),
            tokenizer,
            recipe(),
            {"train": None, "val": None},
            tmp_path / "file" / "cache",
        )
