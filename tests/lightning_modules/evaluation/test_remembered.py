"""A remembered measurement is returned as it was, or not at all."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_modules.evaluation.remembered import Measurement, Remembered
from lightning_modules.evaluation.think_scores import AnsweredRow
from lightning_modules.generation.think_response import ThinkResponse

KEY = {"rows": "0123", "model": {"dtype": "float32", "rows": 8}}


def measurement() -> Measurement:
    written = ThinkResponse(
        "<think>a</think>\ud8005", ("a",), "\ud8005", True, True, 9, 2, "raw", 1, "budget", masked=0.25
    )
    reference = ThinkResponse("<think>b</think>7", ("b",), "7", True, True)
    rows = [AnsweredRow(3, "hard", "What is 3 + 4?", written, reference, 2)]
    logged = {"val/loss": 0.1 + 0.2, "val/odd": math.inf}
    return Measurement({"loss": 0.3, "answer_match": 1 / 3}, logged, {"3-abc": False, "4-abd": True}, rows)


def test_what_was_written_is_read_to_the_bit_and_says_when_it_was_measured(tmp_path: Path) -> None:
    assert Remembered(tmp_path, KEY).read() is None
    Remembered(tmp_path, KEY).write(measurement())
    found = Remembered(tmp_path, dict(reversed(KEY.items()))).read()  # the order of the settings is of no account
    assert found is not None and len(found.when) == len("2026-11-28 07:40")
    assert vars(found) == vars(measurement()) | {"when": found.when}
    assert found.answered[0].written.masked == 0.25  # which a comparison leaves out
    assert list(found.rights) == ["3-abc", "4-abd"]


@settings(deadline=None)  # it writes to the disk
@given(st.data())
def test_a_file_with_any_byte_changed_or_cut_is_not_used(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    memory = Remembered(tmp_path_factory.mktemp("memory"), KEY)
    memory.write(measurement())
    whole = memory.path.read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1))
    other = bytes([whole[place] ^ data.draw(st.integers(1, 255))])
    damaged = data.draw(st.sampled_from((whole[:place], whole[:place] + other + whole[place + 1 :])))
    memory.path.write_bytes(damaged)
    assert memory.read() is None


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is damaged"),
        (b"\xff\x00", "is damaged"),
        (None, "is not the measurement of its name"),  # that of another key, under this name
    ],
)
def test_a_damaged_or_foreign_file_is_named_in_one_line_and_replaced(
    content: bytes | None, problem: str, tmp_path: Path, caplog: Any
) -> None:
    memory, other = Remembered(tmp_path, KEY), Remembered(tmp_path, KEY | {"rows": "0124"})
    other.write(measurement())
    memory.path.write_bytes(other.path.read_bytes() if content is None else content)
    assert memory.read() is None
    assert [record.message for record in caplog.records] == [f"{memory.path} {problem}: measured again"]
    memory.write(measurement())
    assert memory.read() is not None


def test_a_folder_that_cannot_be_used_costs_a_measurement_and_no_fit(tmp_path: Path, caplog: Any) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    memory = Remembered(blocked, KEY)
    memory.write(measurement())
    assert memory.read() is None and "cannot be read" in caplog.text


def changed(value: Any) -> Any:
    return f"{value}x" if isinstance(value, str) else value + 1


@given(
    key=st.dictionaries(st.text(max_size=5), st.text(max_size=5) | st.integers() | st.floats(-10, 10), min_size=1),
    data=st.data(),
)
def test_another_value_anywhere_in_the_key_is_another_file(key: dict[str, Any], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(key)))
    there = Path("x")
    assert Remembered(there, key).path == Remembered(there, json.loads(json.dumps(key))).path
    assert Remembered(there, key).path != Remembered(there, key | {name: changed(key[name])}).path
    assert Remembered(there, key).path != Remembered(there, {n: v for n, v in key.items() if n != name}).path
