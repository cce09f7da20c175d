import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules.prepare import pass_over_sources as module
from datamodules.prepare.mix import Part
from datamodules.prepare.pass_over_sources import PassOverSources, Quotas
from datamodules.rows.pieces import Row, SourceRow, numbered
from datamodules.rows.sources import HeldOut, Source, open_source
from datamodules.text.example import Turns
from datamodules.text.segments import Template
from datamodules.tokens.process import ProcessedExample, ProcessingConfig
from datamodules.tokens.template import load_template
from datamodules.tokens.tokenizer import ThinkTokenizer
from errors import UserError
from tests.conftest import TEMPLATE
from tests.stand_ins.chat_templates import chat_tokenizer

ALL: Quotas = {"train": None, "val": None}
WORDS = "one two three four five six seven eight nine ten eleven twelve".split()


def part(name: str, count: int, weight: float | None = None, **row: Any) -> Part:
    def rows() -> Iterator[Row]:
        for i in range(count):
            yield {"instruction": f"{name} asks {i}", "response": f"<think>A {i}. B.</think>c {i}", "id": i, **row}

    return Part(Source(name, name, HeldOut(0.25, 0), lambda: numbered(rows())), ProcessingConfig(TEMPLATE), weight)


def sources(source_pass: PassOverSources) -> list[str]:
    return [source for _, source, split in source_pass if split is not None]


def test_the_pass_ends_when_every_split_is_full(tiny_tokenizer: ThinkTokenizer) -> None:
    endless = Part(open_source("builtin", None, "train", 0.1, 0), ProcessingConfig(TEMPLATE))
    source_pass = PassOverSources([endless], tiny_tokenizer.encoder, {"train": 300, "val": 20}, 0.8)
    assert len(list(source_pass)) == 320
    assert source_pass.stats.kept == {"train": 300, "val": 20}
    assert source_pass.stats.read < 1_600


def test_test_rows_follow_the_validation_rows(tiny_tokenizer: ThinkTokenizer) -> None:
    def ids(quotas: Quotas) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for example, _, split in PassOverSources([part("a", 400)], tiny_tokenizer.encoder, quotas):
            found.setdefault(str(split), []).append(example.row_id)
        return found

    one, two = ids({"train": 10, "val": 10}), ids({"val": 10, "test": 10})
    assert one["val"] == two["val"]
    assert not set(two["test"]) & (set(two["val"]) | set(one["train"]))


class CountedRow(dict[str, Any]):
    """A row that counts how often each column is read."""

    def __init__(self, row: Row) -> None:
        super().__init__(row)
        self.reads: Counter[str] = Counter()

    def get(self, key: str, default: Any = None) -> Any:
        self.reads[key] += 1
        return super().get(key, default)

    def __getitem__(self, key: str) -> Any:
        self.reads[key] += 1
        return super().__getitem__(key)


@pytest.mark.parametrize("texts", [False, True])
def test_the_columns_of_a_row_are_read_once(tiny_tokenizer: ThinkTokenizer, texts: bool) -> None:
    given = part("a", 40)
    rows = [CountedRow(row) for row, _, _ in given.source.rows()]
    counted = replace(given, source=replace(given.source, rows=lambda: numbered(rows)))
    assert len(list(PassOverSources([counted], tiny_tokenizer.encoder, ALL, 0.8, texts=texts))) == 40
    assert {count for row in rows for count in row.reads.values()} == {1}
    assert all({"instruction", "response", "id"} <= row.reads.keys() for row in rows)


def test_rows_of_a_full_side_are_neither_kept_nor_dropped(tiny_tokenizer: ThinkTokenizer) -> None:
    source_pass = PassOverSources([part("a", 600)], tiny_tokenizer.encoder, {"train": None, "val": 3})
    examples = list(source_pass)
    assert source_pass.stats.read == 600
    assert len(examples) == sum(source_pass.stats.kept.values()) < 600
    assert not source_pass.stats.dropped


def test_the_number_of_processes_does_not_change_the_result(
    tiny_tokenizer: ThinkTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK", 16)
    monkeypatch.setattr(module, "CHUNKS_HERE", 1)
    parts = [part("a", 300, 1.0), part("b", 300, 2.0)]

    def run(num_proc: int) -> tuple[list[tuple[str, str, str | None, list[int]]], dict[str, Any]]:
        source_pass = PassOverSources(parts, tiny_tokenizer.encoder, {"train": 150, "val": 40}, 0.8, num_proc)
        return [(o.row_id, s, split, o.ids.tolist()) for o, s, split in source_pass], asdict(source_pass.stats)

    assert run(1) == run(2)


def test_weights_apply_to_the_kept_rows(tiny_tokenizer: ThinkTokenizer) -> None:
    """Dropped rows of a source do not count, and the pass ends when one source is exhausted."""
    short = part("short", 2_000, 4.0)
    long = part("long", 2_000, 1.0)
    half = replace(long, config=replace(long.config, filters={"id": list(range(0, 2_000, 2))}))
    found = sources(PassOverSources([half, short], tiny_tokenizer.encoder, {"train": 500, "val": 100}))
    assert Counter(found) == {"long": 120, "short": 480}
    assert Counter(found[:50]) == {"long": 10, "short": 40}
    source_pass = PassOverSources([part("few", 30, 1.0), part("many", 2_000, 3.0)], tiny_tokenizer.encoder, ALL)
    assert Counter(sources(source_pass)) == {"few": 30, "many": 90}


def test_without_weights_each_source_gives_all_rows(tiny_tokenizer: ThinkTokenizer) -> None:
    source_pass = PassOverSources([part("few", 3), part("many", 70)], tiny_tokenizer.encoder, ALL)
    assert Counter(sources(source_pass)) == {"few": 3, "many": 70} == source_pass.stats.by_source


def test_near_duplicates_on_the_other_side_are_dropped_and_counted(tiny_tokenizer: ThinkTokenizer) -> None:
    text = " ".join(WORDS * 3)

    def rows() -> Iterator[Row]:
        for i in range(40):
            first = "Please: " if i % 2 else ""
            yield {"instruction": f"{first}{text}{'!' * (i + 1)}", "response": "<think>a</think>b", "id": i}

    def kept(near: float | None, comparable: bool = True) -> tuple[dict[str, int], dict[str, int]]:
        source = Source("x", "x", lambda row, _: row["id"] % 4 == 0, lambda: numbered(rows()), comparable)
        source_pass = PassOverSources([Part(source, ProcessingConfig(TEMPLATE))], tiny_tokenizer.encoder, ALL, near)
        list(source_pass)
        return source_pass.stats.kept, source_pass.stats.dropped

    assert kept(None) == kept(0.8, comparable=False) == ({"train": 30, "val": 10}, {})
    assert kept(0.8) == ({"train": 0, "val": 10}, {"near duplicate of a held-out instruction": 30})


SUBJECTS = ("a baker sells bread", "two trains leave a town", "a farmer counts sheep", "a clock strikes the hour")


@st.composite
def near_sets(draw: st.DrawFn) -> list[Row]:
    """Rows of which many are one instruction in two or three wordings, in any order, some of them malformed."""
    rows = []
    for question in range(draw(st.integers(4, 40))):
        subject = SUBJECTS[question % len(SUBJECTS)]
        text = f"In village {question} {subject}. " + " ".join(one + other for one in WORDS[:6] for other in WORDS)
        for wording in range(draw(st.integers(1, 3))):
            thought = draw(st.sampled_from(["<think>a</think>b", "<think>never closed"]))
            rows.append(
                {"instruction": text + " please tell me" * wording, "response": thought, "id": f"{question}.{wording}"}
            )
    return draw(st.permutations(rows))


NUMBERS = st.one_of(st.none(), st.integers(1, 30))


@given(near_sets(), st.tuples(NUMBERS, NUMBERS, NUMBERS), st.tuples(NUMBERS, NUMBERS, NUMBERS))
@settings(max_examples=60, deadline=None)
def test_no_row_of_a_split_is_near_a_row_of_another_one_whatever_the_numbers_asked_for(
    tiny_tokenizer: ThinkTokenizer, rows: list[Row], fitted: tuple[Any, Any, Any], tested: tuple[Any, Any, Any]
) -> None:
    """The rows of a fit, and the test rows of a later command with other numbers, never meet."""
    source = Source("rows", "rows", HeldOut(0.4, 0), lambda: numbered(rows))

    def splits(numbers: tuple[Any, Any, Any]) -> dict[str, list[str]]:
        quotas = dict(zip(("train", "val", "test"), numbers, strict=True))
        part = Part(source, ProcessingConfig(TEMPLATE))
        found: dict[str, list[str]] = {split: [] for split in quotas}
        for example, _, split in PassOverSources([part], tiny_tokenizer.encoder, quotas, 0.8):
            if split:
                found[split].append(example.row_id)
        return found

    def questions(ids: list[str]) -> set[str]:
        return {row_id.partition(".")[0] for row_id in ids}

    fit = splits(fitted)
    later = splits((tested[0], fitted[1], tested[2]))  # the number of validation rows moves the border to test rows
    assert fit["val"] == later["val"]
    for one, other in ((fit, fit), (fit, later), (later, fit)):
        assert not questions(one["train"]) & questions(other["val"] + other["test"])
        assert not set(one["val"]) & set(other["test"])


def test_the_number_of_test_rows_changes_no_training_row(tiny_tokenizer: ThinkTokenizer) -> None:
    parts = [part("a", 400, 1.0), part("b", 400, 2.0)]

    def fitted(test_rows: int | None) -> list[tuple[str, str]]:
        source_pass = PassOverSources(parts, tiny_tokenizer.encoder, {"train": 60, "val": 12, "test": test_rows}, 0.8)
        return [(f"{name} {o.row_id}", split) for o, name, split in source_pass if split in ("train", "val")]

    assert fitted(0) == fitted(1) == fitted(30) == fitted(None)


def test_a_source_of_a_mix_that_gives_nothing_ends_the_pass_with_its_name(
    tiny_tokenizer: ThinkTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "GIVE_UP_AFTER", 300)
    barren = replace(part("barren", 10**9, 1.0), config=ProcessingConfig(TEMPLATE, filters={"id": [-1]}))
    with pytest.raises(UserError, match=r"data\.mix: 'barren' gave no row to keep in 300 rows"):
        list(PassOverSources([part("good", 2_000, 1.0), barren], tiny_tokenizer.encoder, {"train": 900, "val": 9}))


def test_rows_without_an_instruction_are_counted(tiny_tokenizer: ThinkTokenizer) -> None:
    source_pass = PassOverSources([part("a", 3, instruction=None)], tiny_tokenizer.encoder, ALL)
    reason = "instruction or response is not a text"
    assert [(example.reason, split) for example, _, split in source_pass] == [(reason, None)] * 3
    assert source_pass.stats.dropped_ids == {reason: ["0", "1", "2"]}


def test_a_near_duplicate_that_is_malformed_counts_under_both_reasons(tiny_tokenizer: ThinkTokenizer) -> None:
    words = "Name every bridge of the town by the river and say who built it and when"
    rows = [
        {"instruction": f"{words}{' please' * k}", "response": response}
        for k, response in enumerate(["<think>a</think>b", *["<think>cut"] * 20])
    ]
    source = Source("rows", "rows", HeldOut(0.5, 0), lambda: numbered(rows))
    source_pass = PassOverSources([Part(source, ProcessingConfig(TEMPLATE))], tiny_tokenizer.encoder, ALL, 0.5)
    near = [example for example, _, _ in source_pass if any("near" in reason for reason in example.reasons)]
    assert near and all(len(example.reasons) == 3 for example in near)
    stats = source_pass.stats
    assert stats.dropped_rows == 20 < sum(stats.dropped.values()) == 40 + len(near)


def test_a_killed_process_is_reported(tiny_tokenizer: ThinkTokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNKS_HERE", 0)
    monkeypatch.setattr(module, "_process_in_worker", _die)
    with pytest.raises(UserError, match=r"data\.num_proc: '2' .*lack of memory.*Give a smaller number"):
        list(PassOverSources([part("a", 300)], tiny_tokenizer.encoder, ALL, num_proc=2))


def _die(*_: object) -> list[ProcessedExample]:
    import os

    os._exit(9)


def test_an_endless_source_without_a_kept_row_is_given_up(tiny_tokenizer: ThinkTokenizer) -> None:
    source = open_source("builtin", None, "train", 0.1, 0)
    part = Part(source, ProcessingConfig(TEMPLATE, filters={"difficulty": ["gigantic"]}))
    with pytest.raises(UserError, match=r"data\.filters: .*data\.filters\.difficulty is not met"):
        list(PassOverSources([part], tiny_tokenizer.encoder, {"train": 3, "val": 3}))


ENDLESS_PREPARATION = """
import multiprocessing
from datamodules.prepare import pass_over_sources as module
from datamodules.prepare.mix import Part
from datamodules.rows.sources import open_source
from datamodules.text.segments import Role, Segment, Template
from datamodules.tokens.process import ProcessingConfig
from datamodules.tokens.tokenizer import ThinkTokenizer

if __name__ == "__main__":
    module.CHUNKS_HERE = 0
    config = ProcessingConfig(Template((None, Segment(Role.PROMPT, ": "))))
    part = Part(open_source("builtin", None, "train", 0.1, 0), config)
    encoder = ThinkTokenizer.load("assets/tiny-qwen").encoder
    for _ in module.PassOverSources([part], encoder, {"train": 10**9}, None, num_proc=2):
        print(*(child.pid for child in multiprocessing.active_children()), flush=True)
"""


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_the_workers_of_a_killed_preparation_end(tmp_path: Path) -> None:
    script = tmp_path / "prepare.py"
    script.write_text(ENDLESS_PREPARATION)
    root = Path(__file__).parents[3]
    environment = os.environ | {"PYTHONPATH": str(root)}
    first = subprocess.Popen([sys.executable, script], cwd=root, env=environment, stdout=subprocess.PIPE, text=True)
    assert first.stdout is not None
    workers = [int(pid) for pid in first.stdout.readline().split()]
    assert len(workers) == 2 and all(map(lives, workers))
    first.kill()
    first.wait()
    deadline = time.monotonic() + 30
    while any(map(lives, workers)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(lives, workers))


def test_what_was_odd_about_a_row_in_its_file_is_counted_if_it_is_kept(tiny_tokenizer: ThinkTokenizer) -> None:
    given = [
        SourceRow({"instruction": f"Q {k}", "response": "<think>a</think>b"}, f"p{k}", "odd" * (k % 2))
        for k in range(8)
    ]
    source = Source("x", "x", HeldOut(0.5, 0), lambda: iter(given), reading="in order")
    source_pass = PassOverSources([Part(source, ProcessingConfig(TEMPLATE))], tiny_tokenizer.encoder, ALL)
    assert {example.row_id for example, _, _ in source_pass} == {f"p{k}" for k in range(8)}
    assert source_pass.stats.notes == {"odd": 4}
    assert "  x: in order" in source_pass.stats.lines(512)


def chats(count: int, turns: Turns, template: Template) -> Part:
    def rows() -> Iterator[Row]:
        for i in range(count):
            turns_here = [(f"Is {i}{k} prime?", f"<think>Hm {i}. Let me see.</think>{k}") for k in range(1 + i % 3)]
            yield {"conversation": [text for turn in turns_here for text in turn]}

    config = ProcessingConfig(template, turns=turns)
    return Part(Source("chats", "chats", HeldOut(0.3, 0), lambda: numbered(rows())), config)


@pytest.mark.parametrize("num_proc", [1, 2])
def test_all_answers_of_a_conversation_are_on_one_side(num_proc: int, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = chat_tokenizer("qwen2.5")
    template = load_template("chat", None, tokenizer)
    monkeypatch.setattr(module, "CHUNKS_HERE", 0)
    monkeypatch.setattr(module, "CHUNK", 20)
    sides: dict[str, set[str]] = {}
    split_of: dict[str, str] = {}
    for turns in ("each", "last"):
        source_pass = PassOverSources([chats(60, turns, template)], tokenizer.encoder, ALL, 0.8, num_proc)
        for example, _, split in source_pass:
            assert split is not None and example.reason is None
            if turns == "each":
                split_of[example.row_id] = split
                sides.setdefault(example.row_id.split("/")[0], set()).add(split)
            else:  # the last answer is on the side of all the others
                assert sides[example.row_id] == {split}
    assert len(sides) == 60 and len(split_of) == 120 and set(split_of.values()) == {"train", "val"}
    assert all(f"{i}/{k}" in split_of for i in range(60) for k in range(1, 2 + i % 3))
    assert split_of.keys().isdisjoint({"0/0", "0/2"})


def test_a_near_duplicate_of_a_conversation_is_found_by_all_that_its_user_says() -> None:
    tokenizer = chat_tokenizer("qwen2.5")
    part = chats(60, "each", load_template("chat", None, tokenizer))
    source_pass = PassOverSources([part], tokenizer.encoder, ALL, 0.8)
    found = {read.raw.row_id: example.signature for read, example in source_pass.processed(part)}
    assert found["2/1"] is not None and [list(found[f"2/{k}"]) for k in (2, 3)] == [list(found["2/1"])] * 2  # type: ignore[arg-type]
    assert list(found["1/1"]) == list(found["1/2"]) != list(found["2/1"])  # type: ignore[arg-type]


def test_the_layout_of_each_file_is_said(tiny_tokenizer: ThinkTokenizer, tmp_path: Path) -> None:
    for k in range(8):
        row = {"instruction": f"a{k}?", "response": "<think>b</think>c"}
        (tmp_path / f"one-{k}.jsonl").write_text(json.dumps(row) + "\n")
    (tmp_path / "two.jsonl").write_text(json.dumps({"question": "d?", "answer": "<think>e</think>f", "more": 1}) + "\n")
    part = Part(open_source(str(tmp_path / "*.jsonl"), None, "train", 0.5, 0), ProcessingConfig(TEMPLATE))
    source_pass = PassOverSources([part], tiny_tokenizer.encoder, {"train": None, "val": None})
    list(source_pass)
    source = tmp_path / "*.jsonl"
    assert sorted(source_pass.stats.layout_lines()) == [
        (
            f"{source}: instruction in question, response in answer (found by name); not read: more (two.jsonl)",
            1,
        ),
        (
            f"{source}: instruction, response (found by name) "
            "(one-0.jsonl, one-1.jsonl, one-2.jsonl, one-3.jsonl, one-4.jsonl, …)",
            8,
        ),
    ]
