"""What becomes of rows between the file and the model: left out with a reason, cut as asked for, never unbalanced."""

from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules.prepare.stats import Report
from datamodules.text.malformed import MalformedPolicy
from datamodules.text.response import Columns, Tags
from datamodules.text.segments import Role
from datamodules.text.steps import StepSettings
from datamodules.tokens.process import (
    CUT,
    OVERLONG,
    SHORTENED,
    UNSUPERVISED,
    Overlong,
    ProcessedExample,
    ProcessingConfig,
    process_rows,
)
from datamodules.tokens.tokenizer import Encoder, ThinkTokenizer
from tests.conftest import TEMPLATE, TINY

Row = dict[str, Any]
ROW: Row = {"instruction": "2 + 2?", "response": "<think>\nTwo and two. It is 4.\n</think>\n\n4", "difficulty": "easy"}
LONG: Row = ROW | {"response": f"<think>\n{' '.join(f'Now x = {i}.' for i in range(40))}\n</think>\n\n4"}


@pytest.fixture(scope="module")
def encoder(tiny_tokenizer: ThinkTokenizer) -> Encoder:
    return tiny_tokenizer.encoder


def recipe(split: Any = "sentence", **others: Any) -> ProcessingConfig:
    return ProcessingConfig(TEMPLATE, StepSettings(split=split), **{"max_length": 512, **others})


def one(row: Row, given: ProcessingConfig, encoder: Encoder, **asked: bool) -> ProcessedExample:
    (outcome,) = process_rows([(0, row)], given, encoder, **asked)
    return outcome


def spelled(outcome: ProcessedExample, tokenizer: ThinkTokenizer) -> str:
    return tokenizer.decode(outcome.ids.tolist())


def tags_balanced(outcome: ProcessedExample, tokenizer: ThinkTokenizer) -> bool:
    """Whether tags take turns, each by its id and its role, with thoughts within and everything else without."""
    inside = False
    for token, role in zip(outcome.ids.tolist(), outcome.roles.tolist(), strict=True):
        if (token == tokenizer.open_id) != (role == Role.TAG_OPEN) or (token == tokenizer.close_id) != (
            role == Role.TAG_CLOSE
        ):
            return False
        if inside != (role in (Role.THOUGHT, Role.TAG_CLOSE)):
            return False
        inside = role in (Role.TAG_OPEN, Role.THOUGHT)
    return not inside


def test_a_row_that_is_kept_has_its_tokens_and_sizes(tiny_tokenizer: ThinkTokenizer) -> None:
    row = one(ROW | {"id": "r"}, recipe(), tiny_tokenizer.encoder)
    assert (row.row_id, row.group, row.reason, row.notes) == ("r", "easy", None, ())
    assert spelled(row, tiny_tokenizer) == (
        "### Instruction: 2 + 2?\n### Response: "
        "<think>Two and two.</think><think>It is 4.</think>\n\n4" + tiny_tokenizer.decode([tiny_tokenizer.end_id])
    )
    assert row.steps == 2
    assert row.length == len(row.ids) == len(row.roles)
    assert row.ids[row.closes_at - 1] == tiny_tokenizer.close_id
    assert tiny_tokenizer.close_id not in row.ids[row.closes_at :]
    prompt = tiny_tokenizer.encode(["### Instruction: 2 + 2?\n### Response: "])[0]
    assert row.supervised == row.length - len(prompt)


def test_outcomes_come_in_the_order_of_the_rows_each_with_its_own_tokens(tiny_tokenizer: ThinkTokenizer) -> None:
    """Rows that are left out before tokenization are among those that are not."""
    broken: dict[int, Row] = {1: {"response": None}, 4: {"response": "<think>a"}, 7: {"difficulty": "hard"}}
    rows = [(10 + i, ROW | {"instruction": f"Take {i}"} | broken.get(i, {})) for i in range(12)]
    outcomes = process_rows(rows, recipe(where={"difficulty": "easy"}), tiny_tokenizer.encoder)
    assert [outcome.row_id for outcome in outcomes] == [str(10 + i) for i in range(12)]
    for i, outcome in enumerate(outcomes):
        assert (outcome.reason is None) == (i not in (1, 4, 7))
        if outcome.reason is None:
            assert f"Take {i}\n" in spelled(outcome, tiny_tokenizer)
        else:
            assert (outcome.length, len(outcome.ids), outcome.supervised) == (0, 0, 0)
    assert [outcomes[i].reason for i in (1, 4, 7)] == [
        "instruction or response is not a text", "think block never closed (data.untidy.unclosed)", "where: difficulty"
    ]  # fmt: skip


def test_no_rows_give_no_outcomes(encoder: Encoder) -> None:
    assert process_rows([], recipe(), encoder) == []
    (alone,) = process_rows([(3, {})], recipe(), encoder)
    assert (alone.row_id, alone.reason) == ("3", "instruction or response is not a text")


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ({"instruction": None}, "instruction or response is not a text"),
        ({"instruction": 5}, "instruction or response is not a text"),
        ({"response": {"a": 1}}, "instruction or response is not a text"),
        ({"instruction": None, "conversations": [{"from": ["human"], "value": "a"}]},
         "instruction or response is not a text"),
        ({"instruction": "\n"}, "empty instruction"),
        ({"response": ""}, "empty response"),
        ({"instruction": "a\ud800"}, "not valid UTF-8"),
        ({"response": "<think>a</think>\udcff"}, "not valid UTF-8"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("texts", [False, True])
def test_rows_that_hold_no_text_are_left_out_beside_rows_that_do(
    encoder: Encoder, broken: Row, reason: str, texts: bool
) -> None:
    bad, good = process_rows([(0, ROW | broken), (1, ROW)], recipe(), encoder, texts=texts)
    assert (bad.reason, good.reason) == (reason, None)
    assert isinstance(bad.instruction, str)


def test_texts_are_there_where_they_are_asked_for(encoder: Encoder) -> None:
    rows = [(0, ROW), (1, ROW | {"response": "<think>a"}), (2, ROW | {"difficulty": "hard"})]
    given = recipe(where={"difficulty": "easy"})
    for outcome in process_rows(rows, given, encoder):
        assert (outcome.raw, outcome.instruction, outcome.thoughts, outcome.answer) == ({}, "", [], "")
    kept, malformed, unwanted = process_rows(rows, given, encoder, texts=True)
    assert [outcome.raw for outcome in (kept, malformed, unwanted)] == [row for _, row in rows]
    assert [outcome.instruction for outcome in (kept, malformed, unwanted)] == ["2 + 2?"] * 3
    for outcome in (kept, unwanted):
        assert (outcome.thoughts, outcome.answer) == (["Two and two.", "It is 4."], "\n\n4")
    assert (malformed.thoughts, malformed.answer) == ([], "")


def test_texts_are_those_that_the_model_sees(encoder: Encoder) -> None:
    repaired = one(ROW | {"response": "a\r\n</think>b"}, recipe("none", untidy=MalformedPolicy(windows_lines="repair")), encoder,
                   texts=True)  # fmt: skip
    assert (repaired.thoughts, repaired.answer) == (["a\n"], "b")
    no_answer = one(
        ROW | {"response": "<think>a</think>"}, recipe(untidy=MalformedPolicy(no_answer="keep")), encoder, texts=True
    )
    assert (no_answer.thoughts, no_answer.answer) == (["a"], "")
    shortened = one(LONG, recipe(max_length=120, overlong="truncate_thoughts"), encoder, texts=True)
    assert shortened.thoughts[0] == "Now x = 0." and shortened.thoughts[-1] == "Now x = 39."
    assert 2 < len(shortened.thoughts) < 40
    assert (shortened.instruction, shortened.answer) == ("2 + 2?", "\n\n4")


def test_texts_and_signatures_change_no_token(encoder: Encoder) -> None:
    given = recipe(max_length=120, overlong="truncate_thoughts")
    for row in (ROW, LONG):
        plain, full = one(row, given, encoder), one(row, given, encoder, texts=True, compare=True)
        assert plain.signature is None and full.signature is not None
        assert (plain.ids.tolist(), plain.notes) == (full.ids.tolist(), full.notes)


def test_what_was_untidy_is_noted(encoder: Encoder) -> None:
    row = one(ROW | {"response": "a\r\n</think>b"}, recipe(), encoder)
    assert row.notes == ("Windows line ends (kept)", "no opening tag (repaired)")


def test_columns_tags_and_policies_are_those_of_the_recipe(tiny_tokenizer: ThinkTokenizer) -> None:
    given = recipe(
        "none", columns=Columns(instruction="q", response="a", group="level", row_id="key"), tags=Tags("[T]", "[/T]"),
        untidy=MalformedPolicy(no_answer="keep"),
    )  # fmt: skip
    row = one({"q": "Hi", "a": "[T]b <think>[/T]", "level": "low", "key": "k"}, given, tiny_tokenizer.encoder)
    assert (row.row_id, row.group, row.steps, row.reason) == ("k", "low", 1, None)
    assert spelled(row, tiny_tokenizer).startswith("### Instruction: Hi\n### Response: <think>b <think></think>")
    assert row.ids.tolist().count(tiny_tokenizer.open_id) == 1  # the one in the thought is text


@pytest.mark.parametrize("text", ["<think>x</think>", "<|im_end|>", "</think>", "<|endoftext|>"])
@pytest.mark.parametrize("split", ["none", "sentence"])
def test_tags_and_control_tokens_in_an_instruction_stay_text(
    tiny_tokenizer: ThinkTokenizer, text: str, split: str
) -> None:
    row = one(ROW | {"instruction": f"What is {text} for?"}, recipe(split), tiny_tokenizer.encoder)
    prompt = row.ids[row.roles == Role.PROMPT].tolist()
    assert not set(prompt) & set(tiny_tokenizer.control_ids.values())
    assert tiny_tokenizer.decode(prompt) == f"### Instruction: What is {text} for?\n### Response: "
    assert tags_balanced(row, tiny_tokenizer)


def test_control_tokens_and_tags_in_code_of_a_response_stay_text(tiny_tokenizer: ThinkTokenizer) -> None:
    row = one(ROW | {"response": "<think>`</think>` <|im_end|></think>`<think>` 4"}, recipe(), tiny_tokenizer.encoder)
    assert row.notes == ("think tags in code (kept)",)
    assert tags_balanced(row, tiny_tokenizer) and row.steps == 1
    assert row.ids.tolist().count(tiny_tokenizer.end_id) == 1


@pytest.mark.parametrize(
    ("where", "reason"),
    [
        ({}, None),
        ({"difficulty": ["easy", "hard"]}, None),
        ({"difficulty": "hard"}, "where: difficulty"),
        ({"steps": 2}, None),
        ({"steps": {"min": 3}}, "where: steps"),
        ({"tokens": {"min": 10, "max": 400}}, None),
        ({"tokens": {"max": 10}}, "where: tokens"),
        ({"tokens": {"max": 10}, "difficulty": "hard"}, "where: difficulty"),
    ],
)
def test_rows_are_selected_by_columns_and_by_size(encoder: Encoder, where: Row, reason: str | None) -> None:
    assert one(ROW, recipe(where=where), encoder).reason == reason


def test_size_is_that_of_the_row_before_it_is_cut(encoder: Encoder) -> None:
    for overlong in get_args(Overlong):
        asked = recipe(max_length=120, overlong=overlong, where={"tokens": {"max": 120}})
        assert one(LONG, asked, encoder).reason == "where: tokens"
        asked = recipe(max_length=120, overlong=overlong, where={"steps": 40})
        assert one(LONG, asked, encoder).reason == (OVERLONG if overlong == "drop" else None)


def test_sizes_are_measured_before_anything_is_cut(encoder: Encoder) -> None:
    whole = one(LONG, recipe(max_length=5_000), encoder)
    assert whole.reason is None and whole.length == len(whole.ids) > 300 and whole.steps == 40
    for overlong in get_args(Overlong):
        row = one(LONG, recipe(max_length=120, overlong=overlong), encoder)
        assert (row.length, row.closes_at, row.steps) == (whole.length, whole.closes_at, whole.steps)
        if row.reason is None:
            assert len(row.ids) <= 120


def test_a_row_of_just_max_length_is_whole_and_one_token_more_is_too_long(encoder: Encoder) -> None:
    length = one(ROW, recipe(), encoder).length
    for overlong in get_args(Overlong):
        row = one(ROW, recipe(max_length=length, overlong=overlong), encoder)
        assert (row.reason, row.notes, len(row.ids)) == (None, (), length)
    assert one(ROW, recipe(max_length=length - 1), encoder).reason == OVERLONG


@pytest.mark.parametrize("split", ["none", "sentence", "paragraph", "marker"])
def test_thoughts_are_truncated_in_the_middle_with_every_tag_balanced(
    tiny_tokenizer: ThinkTokenizer, split: str
) -> None:
    response = "\n\n".join(f"Wait, x = {i}. It is so." for i in range(40))
    rows = [ROW | {"response": f"<think>{response}</think>A<think>B. C.</think>\n\nFour"}]
    given = recipe(split, max_length=200, overlong="truncate_thoughts")
    row = one(rows[0], given, tiny_tokenizer.encoder, texts=True)
    assert (row.reason, row.notes) == (None, (SHORTENED,))
    assert tags_balanced(row, tiny_tokenizer)
    assert 150 < len(row.ids) <= 200
    text = spelled(row, tiny_tokenizer)
    assert "x = 0." in text and "x = 39." in text and "C.</think>\n\nFour" in text and "x = 20." not in text
    assert row.supervised == int((row.roles != Role.PROMPT).sum())


def test_a_row_whose_middle_is_not_enough_is_left_out(encoder: Encoder) -> None:
    long_answer = ROW | {"response": f"<think>A. B. C.</think>{'four ' * 200}"}
    row = one(long_answer, recipe(max_length=100, overlong="truncate_thoughts"), encoder)
    assert (row.reason, row.notes) == (OVERLONG, ())
    no_thought = ROW | {"response": "four " * 200}
    given = recipe(max_length=100, overlong="truncate_thoughts", untidy=MalformedPolicy(no_thought="keep"))
    assert one(no_thought, given, encoder).reason == OVERLONG


def test_truncate_cuts_the_end_though_it_may_open_a_block_for_good(tiny_tokenizer: ThinkTokenizer) -> None:
    whole = one(LONG, recipe("none", max_length=5_000), tiny_tokenizer.encoder)
    row = one(LONG, recipe("none", max_length=100, overlong="truncate"), tiny_tokenizer.encoder)
    assert (row.reason, row.notes) == (None, (CUT,))
    assert row.ids.tolist() == whole.ids[:100].tolist() and row.roles.tolist() == whole.roles[:100].tolist()
    assert not tags_balanced(row, tiny_tokenizer)
    assert row.supervised == int((row.roles != Role.PROMPT).sum()) > 0


def test_a_row_without_a_supervised_token_is_refused_and_named(encoder: Encoder) -> None:
    prompt = one(LONG, recipe(max_length=5_000), encoder)
    length = int((prompt.roles == Role.PROMPT).sum())
    reached = one(LONG, recipe(max_length=length + 1, overlong="truncate"), encoder)
    assert (reached.reason, reached.supervised) == (None, 1)
    rows = [(0, LONG), (1, LONG | {"conversation_id": "the long one"})]
    report = Report()
    for outcome in process_rows(rows, recipe(max_length=length, overlong="truncate"), encoder):
        assert (outcome.reason, outcome.supervised) == (UNSUPERVISED, 0)
        report.drop(str(outcome.reason), outcome.row_id)
    assert report.dropped_ids == {UNSUPERVISED: ["0", "the long one"]}
    assert f"  left out 2: {UNSUPERVISED} (0, the long one)" in report.lines(length)


def test_a_block_that_was_kept_empty_is_balanced(tiny_tokenizer: ThinkTokenizer) -> None:
    for response, blocks in (("<think></think>4", 1), ("<think>a</think>b<think> </think>4", 2)):
        row = one(
            ROW | {"response": response},
            recipe("none", untidy=MalformedPolicy(empty_thought="keep")),
            tiny_tokenizer.encoder,
        )
        assert row.reason is None and row.steps == blocks and tags_balanced(row, tiny_tokenizer)


RESPONSES = st.lists(
    st.sampled_from(
        ["<think>", "</think>", "<think>", "</think>", "A b. ", "C d e f g h. ", "Wait, no. ", "\n\n", "`", "\n```\n",
         "\r\n", "\u2028", "好好好。"]
    ),
    max_size=40,
).map("".join)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(
    RESPONSES,
    st.sampled_from(["none", "sentence", "paragraph", "marker"]),
    st.sampled_from(get_args(Overlong)),
    st.integers(1, 150),
    st.booleans(),
)
def test_no_row_that_is_kept_is_unbalanced_or_too_long_or_teaches_nothing(
    response: str, split: str, overlong: Overlong, max_length: int, lenient: bool
) -> None:
    """Whatever was written, and whatever is done about it; `truncate` alone may leave a block open."""
    tokenizer = ThinkTokenizer.load(str(TINY))
    untidy = MalformedPolicy()
    if lenient:
        untidy = MalformedPolicy("repair", "repair", "keep", "keep", "keep", "keep", "keep", "keep", "keep", "keep", "keep",
                        "keep", "keep")  # fmt: skip
    given = recipe(split, max_length=max_length, overlong=overlong, untidy=untidy)
    row = one(ROW | {"response": response}, given, tokenizer.encoder)
    if row.reason is not None:
        return
    assert 0 < len(row.ids) == len(row.roles) <= max_length
    assert row.supervised == int((row.roles != Role.PROMPT).sum()) > 0
    assert (row.length > max_length) == bool({CUT, SHORTENED} & set(row.notes))
    assert (SHORTENED in row.notes) <= (overlong == "truncate_thoughts")
    if CUT not in row.notes:
        assert tags_balanced(row, tokenizer)
        assert row.ids[-1] == tokenizer.end_id
    else:
        assert overlong == "truncate"


def test_r1s_rows_that_are_kept_are_balanced(tiny_tokenizer: ThinkTokenizer, r1_rows: list[dict[str, str]]) -> None:
    rows = list(enumerate(r1_rows[::15]))
    for split in ("none", "sentence"):
        given = recipe(split, max_length=1_200, overlong="truncate_thoughts")
        outcomes = process_rows(rows, given, tiny_tokenizer.encoder)
        kept = [outcome for outcome in outcomes if outcome.reason is None]
        assert len(kept) > len(rows) // 2
        assert any(SHORTENED in outcome.notes for outcome in kept)
        assert all(tags_balanced(outcome, tiny_tokenizer) and len(outcome.ids) <= 1_200 for outcome in kept)
