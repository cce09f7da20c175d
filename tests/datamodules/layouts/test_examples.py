"""The examples of docs/layouts.md are read as the page says."""

import json
import re
from typing import Any

import pytest
import yaml

from datamodules.layouts.columns import Candidates, Columns
from datamodules.layouts.reader import RowReader
from datamodules.text.example import parse_example
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "layouts.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^### (.+?)\n(.*?)```json\n(.*?)```", PAGE, re.MULTILINE | re.DOTALL)
SAME = [("2+2?", ["Two twos."], "4"), ("3*3?", ["Three threes."], "9"), ("9-1?", ["Nine less one."], "8")]


def test_the_page_has_examples() -> None:
    assert len(EXAMPLES) == PAGE.count("### ") >= 11


@pytest.mark.parametrize(("name", "before", "rows"), EXAMPLES, ids=[name for name, _, _ in EXAMPLES])
def test_each_layout_gives_the_same_three_conversations(name: str, before: str, rows: str) -> None:
    block = re.search(r"```yaml\n(.*?)```", before, re.DOTALL)
    given: dict[str, Any] = yaml.safe_load(block[1])["data"] if block else {}
    reader = RowReader(Columns(**given.get("columns", {})), Candidates(**given.get("candidates", {})))
    read = [json.loads(line) for line in rows.splitlines()]
    reader.check(read)
    raws = [raw for k, row in enumerate(read) for raw in reader.read(row, k)]
    assert [raw.problem for raw in raws] == [""] * 3
    examples = [parse_example(raw) for raw in raws]
    assert [(example.instruction, example.thoughts, example.answer.strip()) for example in examples] == SAME
