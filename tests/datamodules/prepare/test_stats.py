"""The counts of a preparation, the table of lengths, and the lines that a user reads."""

import json
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules.prepare.stats import ENOUGH, IDS_PER_REASON, LAYOUTS, LENGTHS, STEP_EDGES, TOKEN_EDGES, DataStats
from datamodules.text.malformed import Fault
from datamodules.text.segments import Role
from datamodules.tokens.process import END_TRUNCATED, OVERLONG, THOUGHTS_TRUNCATED, UNSUPERVISED, ProcessedExample


def sized(length: int = 100, closes_at: int = 60, steps: int = 2, notes: tuple[str, ...] = ()) -> ProcessedExample:
    """An example with only its sizes."""
    return ProcessedExample("a", length=length, closes_at=closes_at, steps=steps, notes=notes)


def dropped(row_id: str, *reasons: str) -> ProcessedExample:
    return ProcessedExample(row_id, faults=tuple(map(Fault, reasons)))


def measured(*examples: ProcessedExample) -> DataStats:
    stats = DataStats(read=len(examples))
    for one in examples:
        stats.measure(one)
    return stats


def tokens(*roles: Role) -> ProcessedExample:
    ids = np.arange(len(roles), dtype=np.int32)
    supervised = sum(role != Role.PROMPT for role in roles)
    return ProcessedExample("a", ids=ids, roles=np.array(roles, np.int8), length=len(roles), supervised=supervised)


ROW = (Role.PROMPT, Role.PROMPT, Role.TAG_OPEN, Role.THOUGHT, Role.TAG_CLOSE, Role.ANSWER, Role.ANSWER, Role.END)


def test_the_table_has_ratios_of_rows_that_fit_and_of_rows_whose_thoughts_fit() -> None:
    stats = measured(sized(512, 512), sized(513, 100), sized(9_000, 8_193), sized(9_000, 8_192), sized(40, 0, steps=0))
    assert (stats.tokenized, stats.thinking) == (5, 4)
    assert list(stats.length_table()) == [
        (512, 2 / 5, 2 / 4),
        (1024, 3 / 5, 2 / 4),
        (2048, 3 / 5, 2 / 4),
        (4096, 3 / 5, 2 / 4),
        (8192, 3 / 5, 3 / 4),
    ]


def test_a_table_of_no_rows_has_ratios_of_zero_and_no_suggestion() -> None:
    assert list(DataStats().length_table()) == [(length, 0.0, 0.0) for length in LENGTHS]
    assert DataStats().suggested_length() is None
    no_thoughts = measured(sized(10, 0, steps=0))
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
def test_the_suggested_length_fits_nine_rows_in_ten(lengths: list[int], suggested: int) -> None:
    assert measured(*map(sized, lengths)).suggested_length() == suggested


sizes = st.lists(st.tuples(st.integers(1, 20_000), st.floats(0, 1), st.integers(0, 600)), min_size=1, max_size=40)


@settings(deadline=None)
@given(sizes)
def test_the_counts_are_those_of_the_rows(rows: list[tuple[int, float, int]]) -> None:
    examples = [sized(length, int(ratio * length) if steps else 0, steps) for length, ratio, steps in rows]
    stats = measured(*examples)
    thinking = [one for one in examples if one.closes_at]
    for length, whole, closed in stats.length_table():
        assert whole == sum(one.length <= length for one in examples) / len(examples)
        assert closed == sum(one.closes_at <= length for one in thinking) / max(len(thinking), 1)
    for edges, bars, values in (
        (TOKEN_EDGES, stats.lengths, [one.length for one in examples]),
        (STEP_EDGES, stats.steps, [one.steps for one in examples]),
    ):
        lows = (-1, *edges)
        highs = (*edges, 10**9)
        assert bars == [sum(low < value <= high for value in values) for low, high in zip(lows, highs, strict=True)]
    suggested = stats.suggested_length()
    ratios = {length: whole for length, whole, _ in stats.length_table()}
    assert suggested is not None
    assert ratios[suggested] >= ENOUGH or suggested == LENGTHS[-1]
    assert all(ratio < ENOUGH for length, ratio in ratios.items() if length < suggested)


def test_dropped_rows_are_counted_by_reason_and_the_first_few_are_named() -> None:
    stats = DataStats()
    for i in range(IDS_PER_REASON + 2):
        stats.drop(dropped(f"row-{i}", "bad"))
    stats.drop(dropped("the one", UNSUPERVISED))
    assert stats.dropped == {"bad": IDS_PER_REASON + 2, UNSUPERVISED: 1}
    assert stats.dropped_ids == {"bad": [f"row-{i}" for i in range(IDS_PER_REASON)], UNSUPERVISED: ["the one"]}
    lines = stats.lines(512)
    assert f"  dropped {IDS_PER_REASON + 2}: bad (row-0, row-1, row-2, row-3, row-4, …)" in lines
    assert f"  dropped 1: {UNSUPERVISED} (the one)" in lines
    assert lines[0].endswith(f"dropped {IDS_PER_REASON + 3}")


def test_a_row_with_several_reasons_counts_under_each_of_them_and_once_in_the_sum() -> None:
    stats = DataStats(read=3, kept={"train": 0})
    stats.drop(dropped("a", "cut", "no answer"))
    assert stats.overlap and stats.dropped_rows == 1
    stats.drop(dropped("b", "no answer", "cut"))
    stats.drop(dropped("c", "no answer"))
    assert (stats.dropped_rows, stats.dropped) == (3, {"cut": 2, "no answer": 3})
    assert stats.dropped_ids == {"cut": ["a", "b"], "no answer": ["a", "b", "c"]}
    assert stats.lines(512)[:4] == [
        "data: 3 rows read, kept 0 train; dropped 3",
        "  dropped 3: no answer (a, b, c)",
        "  dropped 2: cut (a, b)",
        "  a row with several reasons is counted under each of them",
    ]


def test_nothing_is_said_of_several_reasons_if_no_row_has_them() -> None:
    stats = DataStats()
    stats.drop(dropped("a", "cut"))
    stats.drop(dropped("b", "no answer"))
    assert stats.overlap == "" and not any("several" in line for line in stats.lines(512))


def test_no_ellipsis_follows_if_all_rows_are_named() -> None:
    stats = DataStats()
    for i in range(IDS_PER_REASON):
        stats.drop(dropped(str(i), "bad"))
    assert f"  dropped {IDS_PER_REASON}: bad (0, 1, 2, 3, 4)" in stats.lines(512)


def test_the_most_frequent_reason_comes_first() -> None:
    stats = DataStats()
    for reason in ("rare", "often", "often"):
        stats.drop(dropped("a", reason))
    assert [line for line in stats.lines(512) if "dropped" in line][1:] == [
        "  dropped 2: often (a, a)",
        "  dropped 1: rare (a)",
    ]


def test_kept_rows_are_counted_by_split_source_note_and_role() -> None:
    stats = DataStats(read=4)
    short = tokens(Role.PROMPT, Role.ANSWER, Role.END)
    noted = tokens(*ROW)
    noted.notes = ("no opening tag (repaired)", "Windows line ends (kept)")
    stats.keep(noted, "train", "a.jsonl")
    stats.keep(noted, "train", "b.jsonl")
    stats.keep(short, "val", "a.jsonl")
    assert stats.kept == {"train": 2, "val": 1}
    assert stats.tokens == {"train": 16, "val": 3}
    assert stats.supervised_tokens == {"train": 12, "val": 2}
    assert stats.by_source == {"a.jsonl": 2, "b.jsonl": 1}
    assert stats.notes == {"no opening tag (repaired)": 2, "Windows line ends (kept)": 2}
    assert stats.role_tokens == {"prompt": 5, "tag_open": 2, "thought": 2, "tag_close": 2, "answer": 5, "end": 3}
    lines = stats.lines(512)
    assert lines[0] == "data: 4 rows read, kept 2 train, 1 val; dropped 0"
    assert "  from a.jsonl 2, b.jsonl 1" in lines
    assert "  kept 2 with Windows line ends (kept)" in lines and "  kept 2 with no opening tag (repaired)" in lines


def test_a_truncated_row_is_measured_before_and_counted_after_truncation() -> None:
    cut = tokens(*ROW[:5])
    cut.length = 700
    stats = measured(cut)
    stats.keep(cut, "train", "a")
    assert stats.tokens == {"train": 5}
    assert next(iter(stats.length_table()))[1] == 0.0


def test_a_single_source_is_not_named() -> None:
    stats = DataStats()
    stats.keep(tokens(*ROW), "train", "a.jsonl")
    assert not any("from" in line for line in stats.lines(512))


def test_the_lines_show_the_table() -> None:
    lines = measured(sized(600, 500), sized(100, 90), sized(10, 0, steps=0)).lines(512)
    table = [line.split() for line in lines if line.startswith(("  tokens", "  rows"))]
    assert table == [
        ["tokens", "512", "1,024", "2,048", "4,096", "8,192"],
        ["rows", "that", "fit", "67%", "100%", "100%", "100%", "100%"],
        ["rows", "whose", "thoughts", "fit", *["100%"] * 5],
    ]
    shown = [line for line in lines if line.startswith(("  tokens", "  rows"))]
    assert len({len(line) for line in shown}) == 1


@pytest.mark.parametrize("found", ["dropped", THOUGHTS_TRUNCATED, END_TRUNCATED])
def test_a_longer_max_length_is_suggested_for_overlong_rows(found: str) -> None:
    stats = measured(*[sized(600)] * 10)
    suggestion = "  data.max_length is 256; 1,024 would suit these rows"
    assert suggestion not in stats.lines(256)
    if found == "dropped":
        stats.drop(dropped("a", OVERLONG))
    else:
        noted = tokens(*ROW)
        noted.notes = (found,)
        stats.keep(noted, "train", "a")
    assert stats.lines(256)[-1] == suggestion
    assert not any("would suit" in line for line in stats.lines(1024))


def test_stats_come_back_from_json() -> None:
    stats = measured(sized(600, 500), sized(100, 0, steps=0))
    stats.drop(dropped("a", OVERLONG))
    stats.drop(dropped("\ufffd", "not valid UTF-8"))
    noted = tokens(*ROW)
    noted.notes = ("no opening tag (repaired)",)
    stats.keep(noted, "train", "a.jsonl")
    again = DataStats(**json.loads(json.dumps(asdict(stats))))
    assert again == stats
    assert again.lines(64) == stats.lines(64)
    again.measure(sized())
    again.drop(dropped("b", OVERLONG))
    assert again.lengths != stats.lengths and stats.dropped_ids[OVERLONG] == ["a"]


def test_two_stats_share_no_counts() -> None:
    one = DataStats()
    one.measure(sized())
    one.drop(dropped("a", "bad"))
    assert DataStats() == DataStats(read=0) and DataStats() != one


def test_a_layout_that_is_known_still_gets_the_names_of_its_files_when_no_further_one_does() -> None:
    stats = DataStats()
    for number in range(LAYOUTS + 1):
        stats.name_file(f"layout {number}", "first.jsonl")
    stats.name_file("layout 0", "second.jsonl")
    assert len(stats.layout_files) == LAYOUTS
    assert stats.layout_files["layout 0"] == ["first.jsonl", "second.jsonl"]
