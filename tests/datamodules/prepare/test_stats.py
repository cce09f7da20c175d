"""The counts of a preparation, the table of lengths, and the lines that a user reads."""

import json
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules.prepare.stats import ENOUGH, LENGTHS, NAMED, STEP_EDGES, TOKEN_EDGES, Report
from datamodules.text.segments import Role
from datamodules.tokens.process import CUT, OVERLONG, SHORTENED, UNSUPERVISED, ProcessedExample


def outcome(length: int = 100, closes_at: int = 60, steps: int = 2, notes: tuple[str, ...] = ()) -> ProcessedExample:
    """A row of which only the sizes count."""
    return ProcessedExample("a", length=length, closes_at=closes_at, steps=steps, notes=notes)


def measured(*outcomes: ProcessedExample) -> Report:
    report = Report(read=len(outcomes))
    for one in outcomes:
        report.measure(one)
    return report


def tokens(*roles: Role) -> ProcessedExample:
    ids = np.arange(len(roles), dtype=np.int32)
    supervised = sum(role != Role.PROMPT for role in roles)
    return ProcessedExample("a", ids=ids, roles=np.array(roles, np.int8), length=len(roles), supervised=supervised)


ROW = (Role.PROMPT, Role.PROMPT, Role.TAG_OPEN, Role.THOUGHT, Role.TAG_CLOSE, Role.ANSWER, Role.ANSWER, Role.END)


def test_the_table_has_shares_of_rows_whole_and_of_thinking_rows_closed() -> None:
    report = measured(
        outcome(512, 512), outcome(513, 100), outcome(9_000, 8_193), outcome(9_000, 8_192), outcome(40, 0, steps=0)
    )
    assert (report.tokenized, report.thinking) == (5, 4)
    assert list(report.length_table()) == [
        (512, 2 / 5, 2 / 4),
        (1024, 3 / 5, 2 / 4),
        (2048, 3 / 5, 2 / 4),
        (4096, 3 / 5, 2 / 4),
        (8192, 3 / 5, 3 / 4),
    ]


def test_a_table_of_no_rows_has_no_shares_and_suggests_nothing() -> None:
    assert list(Report().length_table()) == [(length, 0.0, 0.0) for length in LENGTHS]
    assert Report().suggested_length() is None
    no_thoughts = measured(outcome(10, 0, steps=0))
    assert next(iter(no_thoughts.length_table())) == (512, 1.0, 0.0)


@pytest.mark.parametrize(
    ("lengths", "suggested"),
    [
        ([100] * 9 + [5_000], 512),
        ([100] * 8 + [600] + [5_000], 1024),
        ([100] * 8 + [5_000] * 2, 8192),
        ([20_000], 8192),
        ([512], 512),
        ([513], 1024),
    ],
)
def test_the_suggested_length_keeps_nine_rows_in_ten_whole(lengths: list[int], suggested: int) -> None:
    assert measured(*map(outcome, lengths)).suggested_length() == suggested


sizes = st.lists(st.tuples(st.integers(1, 20_000), st.floats(0, 1), st.integers(0, 600)), min_size=1, max_size=40)


@settings(deadline=None)
@given(sizes)
def test_the_counts_are_those_of_the_rows(rows: list[tuple[int, float, int]]) -> None:
    outcomes = [outcome(length, int(share * length) if steps else 0, steps) for length, share, steps in rows]
    report = measured(*outcomes)
    thinking = [one for one in outcomes if one.closes_at]
    for length, whole, closed in report.length_table():
        assert whole == sum(one.length <= length for one in outcomes) / len(outcomes)
        assert closed == sum(one.closes_at <= length for one in thinking) / max(len(thinking), 1)
    for edges, bars, values in (
        (TOKEN_EDGES, report.lengths, [one.length for one in outcomes]),
        (STEP_EDGES, report.steps, [one.steps for one in outcomes]),
    ):
        lows = (-1, *edges)
        highs = (*edges, 10**9)
        assert bars == [sum(low < value <= high for value in values) for low, high in zip(lows, highs, strict=True)]
    suggested = report.suggested_length()
    shares = {length: whole for length, whole, _ in report.length_table()}
    assert suggested is not None
    assert shares[suggested] >= ENOUGH or suggested == LENGTHS[-1]
    assert all(share < ENOUGH for length, share in shares.items() if length < suggested)


def test_rows_left_out_are_counted_by_reason_and_the_first_few_named() -> None:
    report = Report()
    for i in range(NAMED + 2):
        report.drop("bad", f"row-{i}")
    report.drop(UNSUPERVISED, "the one")
    assert report.dropped == {"bad": NAMED + 2, UNSUPERVISED: 1}
    assert report.dropped_ids == {"bad": [f"row-{i}" for i in range(NAMED)], UNSUPERVISED: ["the one"]}
    lines = report.lines(512)
    assert f"  left out {NAMED + 2}: bad (row-0, row-1, row-2, row-3, row-4, …)" in lines
    assert f"  left out 1: {UNSUPERVISED} (the one)" in lines
    assert lines[0].endswith(f"left out {NAMED + 3}")


def test_as_many_as_are_named_are_all_of_them() -> None:
    report = Report()
    for i in range(NAMED):
        report.drop("bad", str(i))
    assert f"  left out {NAMED}: bad (0, 1, 2, 3, 4)" in report.lines(512)


def test_the_reason_of_most_rows_comes_first() -> None:
    report = Report()
    for reason in ("rare", "often", "often"):
        report.drop(reason, "a")
    assert [line for line in report.lines(512) if "left out" in line][1:] == [
        "  left out 2: often (a, a)",
        "  left out 1: rare (a)",
    ]


def test_rows_kept_are_counted_by_split_source_note_and_role() -> None:
    report = Report(read=4)
    short = tokens(Role.PROMPT, Role.ANSWER, Role.END)
    noted = tokens(*ROW)
    noted.notes = ("no opening tag (repaired)", "Windows line ends (kept)")
    report.keep(noted, "train", "a.jsonl")
    report.keep(noted, "train", "b.jsonl")
    report.keep(short, "val", "a.jsonl")
    assert report.kept == {"train": 2, "val": 1}
    assert report.tokens == {"train": 16, "val": 3}
    assert report.supervised_tokens == {"train": 12, "val": 2}
    assert report.by_source == {"a.jsonl": 2, "b.jsonl": 1}
    assert report.notes == {"no opening tag (repaired)": 2, "Windows line ends (kept)": 2}
    assert report.role_tokens == {"prompt": 5, "tag_open": 2, "thought": 2, "tag_close": 2, "answer": 5, "end": 3}
    lines = report.lines(512)
    assert lines[0] == "data: 4 rows read, kept 2 train, 1 val; left out 0"
    assert "  from a.jsonl 2, b.jsonl 1" in lines
    assert "  kept 2 with Windows line ends (kept)" in lines and "  kept 2 with no opening tag (repaired)" in lines


def test_a_cut_row_is_measured_as_it_was_and_kept_as_it_is() -> None:
    cut = tokens(*ROW[:5])
    cut.length = 700
    report = measured(cut)
    report.keep(cut, "train", "a")
    assert report.tokens == {"train": 5}
    assert next(iter(report.length_table()))[1] == 0.0


def test_one_source_needs_no_names() -> None:
    report = Report()
    report.keep(tokens(*ROW), "train", "a.jsonl")
    assert not any("from" in line for line in report.lines(512))


def test_the_lines_show_the_table() -> None:
    lines = measured(outcome(600, 500), outcome(100, 90), outcome(10, 0, steps=0)).lines(512)
    table = [line.split() for line in lines if line.startswith(("  tokens", "  rows", "  thinking"))]
    assert table == [
        ["tokens", "512", "1,024", "2,048", "4,096", "8,192"],
        ["rows", "whole", "67%", "100%", "100%", "100%", "100%"],
        ["thinking", "rows", "with", "their", "end", *["100%"] * 5],
    ]
    shown = [line for line in lines if line.startswith(("  tokens", "  rows", "  thinking"))]
    assert len({len(line) for line in shown}) == 1


@pytest.mark.parametrize("found", ["left out", SHORTENED, CUT])
def test_a_longer_max_length_is_suggested_where_rows_are_too_long(found: str) -> None:
    report = measured(*[outcome(600)] * 10)
    suggestion = "  data.max_length is 256; 1,024 would suit these rows"
    assert suggestion not in report.lines(256)
    if found == "left out":
        report.drop(OVERLONG, "a")
    else:
        noted = tokens(*ROW)
        noted.notes = (found,)
        report.keep(noted, "train", "a")
    assert report.lines(256)[-1] == suggestion
    assert not any("would suit" in line for line in report.lines(1024))


def test_a_report_comes_back_from_json() -> None:
    report = measured(outcome(600, 500), outcome(100, 0, steps=0))
    report.drop(OVERLONG, "a")
    report.drop("not valid UTF-8", "\ufffd")
    noted = tokens(*ROW)
    noted.notes = ("no opening tag (repaired)",)
    report.keep(noted, "train", "a.jsonl")
    again = Report(**json.loads(json.dumps(asdict(report))))
    assert again == report
    assert again.lines(64) == report.lines(64)
    again.measure(outcome())
    again.drop(OVERLONG, "b")
    assert again.lengths != report.lengths and report.dropped_ids[OVERLONG] == ["a"]


def test_reports_share_no_counts() -> None:
    one = Report()
    one.measure(outcome())
    one.drop("bad", "a")
    assert Report() == Report(read=0) and Report() != one
