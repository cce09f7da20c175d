"""The generated rows have R1's shapes and Magpie's columns; the stand-in base has Qwen's ids."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from datamodules.tokens.tokenizer import ThinkTokenizer
from tests.stand_ins.base import VOCABULARY, make_tokenizer
from tests.stand_ins.rows import LENGTHS, as_magpie, generated_rows, row, tokens


def test_a_row_depends_on_its_index_and_the_seed_only() -> None:
    assert generated_rows(20)[13] == row(13)
    assert row(13, seed=1) != row(13) != row(14)


@pytest.mark.parametrize(("kind", "median", "high"), [("puzzle", 711, 2_578), ("math", 2_820, 9_868)])
def test_lengths_are_distributed_as_r1s(kind: str, median: int, high: int) -> None:
    rows = [row for row in generated_rows(1_500) if row["source"] == f"{kind}: well-formed"]
    lengths = np.array([tokens(row["instruction"]) + tokens(row["response"]) for row in rows])
    assert np.quantile(lengths, 0.5) == pytest.approx(median, rel=0.1)
    assert np.quantile(lengths, 0.95) == pytest.approx(high, rel=0.2)
    assert lengths.max() <= 1.02 * LENGTHS[kind][-1]


def test_a_few_rows_of_a_hundred_are_malformed() -> None:
    rows = generated_rows(100)
    kinds = Counter(row["source"].partition(": ")[2] for row in rows)
    assert kinds == {"well-formed": 95, "no opening tag": 3, "empty": 1, "cut": 1}
    assert len({row["instruction"] for row in rows}) == 100
    for parts in ("\n\nWait", "\\[", "```", "\n1. ", "\n- "):
        assert any(parts in row["response"] for row in rows), parts


def test_the_columns_are_magpies() -> None:
    rows = list(as_magpie(generated_rows(5), 12))
    assert len({row["instruction"] for row in rows}) == 12
    assert {"conversation_id", "conversations", "difficulty", "input_quality", "task_category", "language"} <= set(
        rows[0]
    )
    assert rows[7]["difficulty"] is None


def test_the_stand_in_tokenizer_has_qwens_ids_and_makes_as_many_tokens(tmp_path: Path) -> None:
    make_tokenizer(tmp_path)
    tokenizer = ThinkTokenizer.load(str(tmp_path))
    assert (tokenizer.end_id, tokenizer.new_ids) == (151_645, [151_646, 151_647])
    assert len(tokenizer) < VOCABULARY
    texts = [row["response"] for row in generated_rows(30)]
    assert sum(map(len, tokenizer.encode(texts))) == pytest.approx(sum(map(tokens, texts)), rel=0.1)
