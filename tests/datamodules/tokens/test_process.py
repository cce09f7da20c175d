"""Rows from the file to the model: dropped with a reason, truncated by the setting, never with unbalanced tags."""

import json
from collections.abc import Sequence
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken

from datamodules.layouts.columns import Columns
from datamodules.layouts.conversation import Message, RawExample
from datamodules.prepare.stats import DataStats
from datamodules.text.example import Turns, each_answer
from datamodules.text.malformed import MalformedPolicy
from datamodules.text.segments import Role
from datamodules.text.steps import StepSettings
from datamodules.text.tags import Tags
from datamodules.tokens.process import (
    END_TRUNCATED,
    OVERLONG,
    THOUGHTS_TRUNCATED,
    UNSUPERVISED,
    Overlong,
    ProcessedExample,
    ProcessingConfig,
    process,
)
from datamodules.tokens.template import load_template
from datamodules.tokens.tokenizer import Encoder, ThinkTokenizer
from tests.conftest import ROOT, TEMPLATE, TINY, raw_example
from tests.stand_ins.chat_templates import CHATS, chat_tokenizer

Row = dict[str, Any]
UNCLOSED = "think block never closed (data.malformed_overrides.unclosed)"
NO_ANSWER = "no answer after the thoughts (data.malformed_overrides.no_answer)"
ROW: Row = {"instruction": "2 + 2?", "response": "<think>\nTwo and two. It is 4.\n</think>\n\n4", "difficulty": "easy"}
LONG: Row = ROW | {"response": f"<think>\n{' '.join(f'Now x = {i}.' for i in range(40))}\n</think>\n\n4"}


@pytest.fixture(scope="module")
def encoder(tiny_tokenizer: ThinkTokenizer) -> Encoder:
    return tiny_tokenizer.encoder


def config(split: Any = "sentence", **others: Any) -> ProcessingConfig:
    return ProcessingConfig(TEMPLATE, StepSettings(split=split), **{"max_length": 512, **others})


def raws(rows: Sequence[Row], columns: Columns = Columns()) -> list[RawExample]:  # noqa: B008 (never changed)
    return [raw_example(row, position, columns) for position, row in enumerate(rows)]


def one(row: Row, given: ProcessingConfig, encoder: Encoder, **asked: bool) -> ProcessedExample:
    (example,) = process(raws([row], given.columns), given, encoder, **asked)
    return example


def spelled(result: ProcessedExample, tokenizer: ThinkTokenizer) -> str:
    return tokenizer.decode(result.ids.tolist())


def tags_balanced(result: ProcessedExample, tokenizer: ThinkTokenizer) -> bool:
    """Whether tags alternate in id and role, with thoughts inside and everything else outside."""
    inside = False
    for token, role in zip(result.ids.tolist(), result.roles.tolist(), strict=True):
        if (token == tokenizer.open_id) != (role == Role.TAG_OPEN) or (token == tokenizer.close_id) != (
            role == Role.TAG_CLOSE
        ):
            return False
        if inside != (role in (Role.THOUGHT, Role.TAG_CLOSE)):
            return False
        inside = role in (Role.TAG_OPEN, Role.THOUGHT)
    return not inside


def test_a_kept_row_has_its_tokens_and_sizes(tiny_tokenizer: ThinkTokenizer) -> None:
    row = one(ROW | {"id": "r"}, config(), tiny_tokenizer.encoder)
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


def test_results_have_the_order_of_the_rows_and_each_has_its_own_tokens(tiny_tokenizer: ThinkTokenizer) -> None:
    """Some rows are dropped before tokenization."""
    broken: dict[int, Row] = {1: {"response": None}, 4: {"response": "<think>a"}, 7: {"difficulty": "hard"}}
    rows = [raw_example(ROW | {"instruction": f"Take {i}"} | broken.get(i, {}), 10 + i) for i in range(12)]
    results = process(rows, config(filters={"difficulty": "easy"}), tiny_tokenizer.encoder)
    assert [result.row_id for result in results] == [str(10 + i) for i in range(12)]
    for i, result in enumerate(results):
        assert (result.reason is None) == (i not in (1, 4, 7))
        if result.reason is None:
            assert f"Take {i}\n" in spelled(result, tiny_tokenizer)
        else:
            assert (result.length, len(result.ids), result.supervised) == (0, 0, 0)
    assert [results[i].reasons for i in (1, 4, 7)] == [
        ["instruction or response is not a text"],
        [UNCLOSED, NO_ANSWER],
        ["data.filters.difficulty is not met"],
    ]


def test_a_dropped_row_has_every_reason(encoder: Encoder) -> None:
    """Shapes, columns, size and length; and the place of what is seen in the response."""
    hard = ROW | {"difficulty": "hard"}
    for texts in (False, True):
        cut = one(hard | {"response": "Hm. <think>a"}, config(filters={"difficulty": "easy"}), encoder, texts=texts)
        assert cut.reasons == [UNCLOSED, NO_ANSWER, "data.filters.difficulty is not met"]
        assert [fault.at for fault in cut.faults] == [4, 12, None]
        assert cut.reason == "; ".join(cut.reasons)
        long = one(LONG, config(max_length=120, filters={"steps": 2}), encoder, texts=texts)
        assert long.reasons == ["data.filters.steps is not met", OVERLONG]
    kept = one(ROW, config(), encoder)
    assert (kept.reasons, kept.reason, kept.faults) == ([], None, ())


def test_no_rows_give_no_results(encoder: Encoder) -> None:
    assert process([], config(), encoder) == []
    (alone,) = process([raw_example({}, 3)], config(), encoder)
    assert (alone.row_id, alone.reason) == ("3", "no columns of a known layout")


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ({"instruction": None}, "instruction or response is not a text"),
        ({"instruction": 5}, "instruction or response is not a text"),
        ({"response": {"a": 1}}, "instruction or response is not a text"),
        ({"instruction": None, "conversations": [{"from": ["human"], "value": "a"}]},
         "a message without a role"),
        ({"instruction": "\n"}, "empty instruction"),
        ({"response": ""}, "empty response"),
        ({"instruction": "a\ud800"}, "not valid UTF-8"),
        ({"response": "<think>a</think>\udcff"}, "not valid UTF-8"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("texts", [False, True])
def test_rows_without_texts_are_dropped_beside_complete_rows(
    encoder: Encoder, broken: Row, reason: str, texts: bool
) -> None:
    bad, good = process(raws([ROW | broken, ROW]), config(), encoder, texts=texts)
    assert (bad.reason, good.reason) == (reason, None)
    assert isinstance(bad.instruction, str)


def test_texts_are_filled_on_request(encoder: Encoder) -> None:
    rows = raws([ROW, ROW | {"response": "<think>a"}, ROW | {"difficulty": "hard"}])
    given = config(filters={"difficulty": "easy"})
    for result in process(rows, given, encoder):
        assert (result.raw, result.instruction, result.thoughts, result.answer) == (None, "", [], "")
    kept, malformed, unwanted = process(rows, given, encoder, texts=True)
    assert [result.raw for result in (kept, malformed, unwanted)] == rows
    assert [result.instruction for result in (kept, malformed, unwanted)] == ["2 + 2?"] * 3
    for result in (kept, unwanted):
        assert (result.thoughts, result.answer) == (["Two and two.", "It is 4."], "\n\n4")
    assert (malformed.thoughts, malformed.answer) == ([], "")


def test_texts_are_the_texts_that_the_model_sees(encoder: Encoder) -> None:
    policy = MalformedPolicy.of("repair", {"windows_lines": "repair"})
    repaired = one(ROW | {"response": "a\r\n</think>b"}, config("none", malformed=policy), encoder, texts=True)
    assert (repaired.thoughts, repaired.answer) == (["a\n"], "b")
    no_answer = one(
        ROW | {"response": "<think>a</think>"},
        config(malformed=MalformedPolicy.of("repair", {"no_answer": "keep"})),
        encoder,
        texts=True,
    )
    assert (no_answer.thoughts, no_answer.answer) == (["a"], "")
    shortened = one(LONG, config(max_length=120, overlong="truncate_thoughts"), encoder, texts=True)
    assert shortened.thoughts[0] == "Now x = 0." and shortened.thoughts[-1] == "Now x = 39."
    assert 2 < len(shortened.thoughts) < 40
    assert (shortened.instruction, shortened.answer) == ("2 + 2?", "\n\n4")


def test_texts_change_no_token(encoder: Encoder) -> None:
    given = config(max_length=120, overlong="truncate_thoughts")
    for row in (ROW, LONG):
        plain, full = one(row, given, encoder), one(row, given, encoder, texts=True)
        assert (plain.ids.tolist(), plain.notes) == (full.ids.tolist(), full.notes)


def test_malformed_shapes_are_noted(encoder: Encoder) -> None:
    row = one(ROW | {"response": "a\r\n</think>b"}, config(), encoder)
    assert row.notes == ("Windows line ends (kept)", "no opening tag (repaired)")


def test_columns_tags_and_policy_come_from_the_config(tiny_tokenizer: ThinkTokenizer) -> None:
    given = config(
        "none", columns=Columns(instruction="q", response="a"), tags=Tags("[T]", "[/T]"),
        malformed=MalformedPolicy.of("repair", {"no_answer": "keep"}),
    )  # fmt: skip
    row = one({"q": "Hi", "a": "[T]b <think>[/T]", "difficulty": "low", "uuid": "k"}, given, tiny_tokenizer.encoder)
    assert (row.row_id, row.group, row.steps, row.reason) == ("k", "low", 1, None)
    assert spelled(row, tiny_tokenizer).startswith("### Instruction: Hi\n### Response: <think>b <think></think>")
    assert row.ids.tolist().count(tiny_tokenizer.open_id) == 1  # the one in the thought is text


@pytest.mark.parametrize("text", ["<think>x</think>", "<|im_end|>", "</think>", "<|endoftext|>"])
@pytest.mark.parametrize("split", ["none", "sentence"])
def test_tags_and_control_tokens_in_an_instruction_stay_text(
    tiny_tokenizer: ThinkTokenizer, text: str, split: str
) -> None:
    row = one(ROW | {"instruction": f"What is {text} for?"}, config(split), tiny_tokenizer.encoder)
    prompt = row.ids[row.roles == Role.PROMPT].tolist()
    assert not set(prompt) & set(tiny_tokenizer.control_ids.values())
    assert tiny_tokenizer.decode(prompt) == f"### Instruction: What is {text} for?\n### Response: "
    assert tags_balanced(row, tiny_tokenizer)


def test_control_tokens_and_tags_in_code_of_a_response_stay_text(tiny_tokenizer: ThinkTokenizer) -> None:
    row = one(ROW | {"response": "<think>`</think>` <|im_end|></think>`<think>` 4"}, config(), tiny_tokenizer.encoder)
    assert row.notes == ("think tags in code (kept)", "<|im_end|> as text (a control token of the model)")
    assert tags_balanced(row, tiny_tokenizer) and row.steps == 1
    assert row.ids.tolist().count(tiny_tokenizer.end_id) == 1


def with_tool_call(new_tokens: Sequence[str] = ()) -> ThinkTokenizer:
    """A tokenizer that has <tool_call> and </tool_call> as tokens, and <|eot|> as a control token."""
    from transformers import AutoTokenizer

    full = AutoTokenizer.from_pretrained(TINY, trust_remote_code=False)
    full.add_tokens([AddedToken(name, normalized=False) for name in ("<tool_call>", "</tool_call>", " ")])
    full.add_special_tokens({"additional_special_tokens": ["<|eot|>"]})
    return ThinkTokenizer(full, Tags(), new_tokens)


CALLS = ROW | {"response": "<think>I call it.</think><tool_call>f()</tool_call> <tool_call>g()</tool_call><|eot|><b>"}


def test_tokens_of_the_model_that_a_response_writes_stay_text_and_are_noted_once_with_the_setting() -> None:
    tokenizer = with_tool_call()
    row = one(CALLS, config(), tokenizer.encoder)
    assert row.notes == (
        "</tool_call> as text (data.new_tokens: ['</tool_call>'] makes it a token)",
        "<tool_call> as text (data.new_tokens: ['<tool_call>'] makes it a token)",
        "<|eot|> as text (a control token of the model)",
    )
    calls = {tokenizer.control_ids[name] for name in ("<tool_call>", "</tool_call>", "<|eot|>")}
    assert not calls & {*row.ids.tolist()}
    asked = ROW | {"instruction": "What is <tool_call>?"}
    assert one(asked, config(), tokenizer.encoder).notes == ()  # an instruction is not what the model writes
    assert one(CALLS, config(max_length=20), tokenizer.encoder).reasons == [OVERLONG]


def test_the_setting_that_a_note_names_makes_the_tokens_of_the_model() -> None:
    plain, tokenizer = with_tool_call(), with_tool_call(("<tool_call>", "</tool_call>"))
    row = one(CALLS, config(), tokenizer.encoder)
    assert row.notes == ("<|eot|> as text (a control token of the model)",)
    ids = [plain.control_ids[name] for name in ("<tool_call>", "</tool_call>")]
    assert [i for i in row.ids.tolist() if i in ids] == [*ids, *ids]
    assert spelled(row, tokenizer).endswith("</tool_call><|eot|><b><|im_end|>")
    assert tokenizer.new_ids == plain.new_ids, "a token of the model needs no new embedding"


@pytest.mark.parametrize(
    ("filters", "reason"),
    [
        ({}, None),
        ({"difficulty": ["easy", "hard"]}, None),
        ({"difficulty": "hard"}, "data.filters.difficulty is not met"),
        ({"steps": 2}, None),
        ({"steps": {"min": 3}}, "data.filters.steps is not met"),
        ({"tokens": {"min": 10, "max": 400}}, None),
        ({"tokens": {"max": 10}}, "data.filters.tokens is not met"),
        ({"tokens": {"max": 10}, "difficulty": "hard"}, "data.filters.difficulty is not met"),
    ],
)
def test_rows_are_filtered_by_columns_and_by_size(encoder: Encoder, filters: Row, reason: str | None) -> None:
    assert one(ROW, config(filters=filters), encoder).reason == reason


def test_filters_see_the_size_before_truncation(encoder: Encoder) -> None:
    for overlong in get_args(Overlong):
        asked = config(max_length=120, overlong=overlong, filters={"tokens": {"max": 120}})
        reasons = ["data.filters.tokens is not met", *([OVERLONG] if overlong == "drop" else [])]
        assert one(LONG, asked, encoder).reasons == reasons
        asked = config(max_length=120, overlong=overlong, filters={"steps": 40})
        assert one(LONG, asked, encoder).reason == (OVERLONG if overlong == "drop" else None)


def test_sizes_are_measured_before_truncation(encoder: Encoder) -> None:
    whole = one(LONG, config(max_length=5_000), encoder)
    assert whole.reason is None and whole.length == len(whole.ids) > 300 and whole.steps == 40
    for overlong in get_args(Overlong):
        row = one(LONG, config(max_length=120, overlong=overlong), encoder)
        assert (row.length, row.closes_at, row.steps) == (whole.length, whole.closes_at, whole.steps)
        if row.reason is None:
            assert len(row.ids) <= 120


def test_a_row_of_max_length_is_kept_whole_and_one_more_token_is_overlong(encoder: Encoder) -> None:
    length = one(ROW, config(), encoder).length
    for overlong in get_args(Overlong):
        row = one(ROW, config(max_length=length, overlong=overlong), encoder)
        assert (row.reason, row.notes, len(row.ids)) == (None, (), length)
    assert one(ROW, config(max_length=length - 1), encoder).reason == OVERLONG


@pytest.mark.parametrize("split", ["none", "sentence", "paragraph", "marker"])
def test_thoughts_are_truncated_in_the_middle_with_every_tag_balanced(
    tiny_tokenizer: ThinkTokenizer, split: str
) -> None:
    response = "\n\n".join(f"Wait, x = {i}. It is so." for i in range(40))
    rows = [ROW | {"response": f"<think>{response}</think>A<think>B. C.</think>\n\nFour"}]
    given = config(split, max_length=200, overlong="truncate_thoughts")
    row = one(rows[0], given, tiny_tokenizer.encoder, texts=True)
    assert (row.reason, row.notes) == (None, (THOUGHTS_TRUNCATED,))
    assert tags_balanced(row, tiny_tokenizer)
    assert 150 < len(row.ids) <= 200
    text = spelled(row, tiny_tokenizer)
    assert "x = 0." in text and "x = 39." in text and "C.</think>\n\nFour" in text and "x = 20." not in text
    assert row.supervised == int((row.roles != Role.PROMPT).sum())


def test_a_row_that_stays_overlong_without_its_middle_is_dropped(encoder: Encoder) -> None:
    long_answer = ROW | {"response": f"<think>A. B. C.</think>{'four ' * 200}"}
    row = one(long_answer, config(max_length=100, overlong="truncate_thoughts"), encoder)
    assert (row.reason, row.notes) == (OVERLONG, ())
    no_thought = ROW | {"response": "four " * 200}
    given = config(
        max_length=100, overlong="truncate_thoughts", malformed=MalformedPolicy.of("repair", {"no_thought": "keep"})
    )
    assert one(no_thought, given, encoder).reason == OVERLONG


def test_truncate_drops_the_end_and_may_leave_a_block_open(tiny_tokenizer: ThinkTokenizer) -> None:
    whole = one(LONG, config("none", max_length=5_000), tiny_tokenizer.encoder)
    row = one(LONG, config("none", max_length=100, overlong="truncate"), tiny_tokenizer.encoder)
    assert (row.reason, row.notes) == (None, (END_TRUNCATED,))
    assert row.ids.tolist() == whole.ids[:100].tolist() and row.roles.tolist() == whole.roles[:100].tolist()
    assert not tags_balanced(row, tiny_tokenizer)
    assert row.supervised == int((row.roles != Role.PROMPT).sum()) > 0


def test_a_row_without_a_supervised_token_is_dropped_and_named(encoder: Encoder) -> None:
    prompt = one(LONG, config(max_length=5_000), encoder)
    length = int((prompt.roles == Role.PROMPT).sum())
    reached = one(LONG, config(max_length=length + 1, overlong="truncate"), encoder)
    assert (reached.reason, reached.supervised) == (None, 1)
    rows = raws([LONG, LONG | {"conversation_id": "the long one"}])
    stats = DataStats()
    for result in process(rows, config(max_length=length, overlong="truncate"), encoder):
        assert (result.reason, result.supervised) == (UNSUPERVISED, 0)
        stats.drop(result)
    assert stats.dropped_ids == {UNSUPERVISED: ["0", "the long one"]}
    assert f"  dropped 2: {UNSUPERVISED} (0, the long one)" in stats.lines(length)


@pytest.mark.parametrize("split", ["none", "sentence", "paragraph", "marker"])
def test_a_kept_empty_block_is_one_step_with_balanced_tags(tiny_tokenizer: ThinkTokenizer, split: str) -> None:
    for response, blocks in (
        ("<think></think>4", 1),
        ("<think>\n\n</think>\n\n4", 1),
        ("<think>\u200b</think>4", 1),
        ("<think>a</think>b<think> </think>4", 2),
    ):
        row = one(
            ROW | {"response": response},
            config(split, malformed=MalformedPolicy.of("repair", {"empty_thought": "keep"})),
            tiny_tokenizer.encoder,
        )
        assert row.reason is None and row.steps == blocks and tags_balanced(row, tiny_tokenizer)
        assert spelled(row, tiny_tokenizer).count("</think>") == blocks


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
def test_every_kept_row_is_balanced_and_short_enough_and_supervised(
    response: str, split: str, overlong: Overlong, max_length: int, lenient: bool
) -> None:
    """For any response and policy. Only `truncate` may leave a block open."""
    tokenizer = ThinkTokenizer.load(str(TINY))
    policy = MalformedPolicy.of("keep" if lenient else "repair")
    given = config(split, max_length=max_length, overlong=overlong, malformed=policy)
    row = one(ROW | {"response": response}, given, tokenizer.encoder)
    if row.reason is not None:
        return
    assert 0 < len(row.ids) == len(row.roles) <= max_length
    assert row.supervised == int((row.roles != Role.PROMPT).sum()) > 0
    assert (row.length > max_length) == bool({END_TRUNCATED, THOUGHTS_TRUNCATED} & set(row.notes))
    assert (THOUGHTS_TRUNCATED in row.notes) <= (overlong == "truncate_thoughts")
    if END_TRUNCATED not in row.notes:
        assert tags_balanced(row, tokenizer)
        assert row.ids[-1] == tokenizer.end_id
    else:
        assert overlong == "truncate"


def test_r1s_kept_rows_are_balanced(tiny_tokenizer: ThinkTokenizer, r1_rows: list[dict[str, str]]) -> None:
    rows = raws(r1_rows[::15])
    for split in ("none", "sentence"):
        given = config(split, max_length=1_200, overlong="truncate_thoughts")
        results = process(rows, given, tiny_tokenizer.encoder)
        kept = [result for result in results if result.reason is None]
        assert len(kept) > len(rows) // 2
        assert any(THOUGHTS_TRUNCATED in result.notes for result in kept)
        assert all(tags_balanced(result, tiny_tokenizer) and len(result.ids) <= 1_200 for result in kept)


SAID = ("Hi", "<think>We greet. We smile.</think>Hello", "2 + 2?", "<think>We add. We check.</think>4")
PROMPT, OPEN, THOUGHT, CLOSE, ANSWER, END = Role


def chat(*texts: str, system: str | None = None) -> RawExample:
    first = (Message("system", system),) if system else ()
    speakers = [Message("assistant" if k % 2 else "user", text) for k, text in enumerate(texts)]
    return RawExample({}, "c", "all", (*first, *speakers))


def runs(example: ProcessedExample, tokenizer: ThinkTokenizer) -> list[tuple[Role, str]]:
    """The roles of an example, each with the text of its neighbouring tokens."""
    cuts = [0, *(1 + i for i in range(len(example.ids) - 1) if example.roles[i] != example.roles[i + 1])]
    ends = [*cuts[1:], len(example.ids)]
    return [
        (Role(example.roles[a]), tokenizer.decode(example.ids[a:b].tolist())) for a, b in zip(cuts, ends, strict=True)
    ]


@pytest.mark.parametrize("name", ["qwen2.5", "llama3"])
def test_the_last_answer_or_all_answers_of_a_conversation_are_supervised(name: str) -> None:
    tokenizer = chat_tokenizer(name)
    template = load_template("chat", None, tokenizer)
    (last,), (every,) = (
        process([chat(*SAID)], ProcessingConfig(template, StepSettings(), turns=turns), tokenizer.encoder, texts=True)
        for turns in ("last", "all")
    )
    opening, closing, end = (OPEN, "<think>"), (CLOSE, "</think>"), (END, CHATS[name].eos)
    steps = [(THOUGHT, "We greet."), (THOUGHT, "We smile."), (THOUGHT, "We add."), (THOUGHT, "We check.")]
    earlier = [opening, steps[0], closing, opening, steps[1], closing, (ANSWER, "Hello")]
    answer = [opening, steps[2], closing, opening, steps[3], closing, (ANSWER, "4")]
    assert last.ids.tolist() == every.ids.tolist()
    assert runs(last, tokenizer)[1:] == [*answer, end] and (last.steps, every.steps) == (2, 4)
    shown = runs(every, tokenizer)
    assert shown[1:9] == [*earlier, end] and shown[10:] == [*answer, end]
    assert [role for role, _ in shown if role == PROMPT] == [PROMPT] * 2 and "2 + 2?" in shown[9][1]
    assert (every.thoughts, every.answer, every.instruction) == ([text for _, text in steps], "4", "2 + 2?")
    assert runs(last, tokenizer)[0][1].count("<think>") == 2  # one for each step, as the model writes them


def test_overlong_conversations_keep_the_first_and_last_step_of_each_answer() -> None:
    tokenizer = chat_tokenizer("qwen1.5")
    template = load_template("chat", None, tokenizer)
    thought = " ".join(f"Now x is {i}." for i in range(12))
    raw = chat("Hi", f"<think>{thought}</think>Hello", "So?", f"<think>{thought}</think>4")
    whole = ProcessingConfig(template, StepSettings(), 10_000, turns="all")
    (full,) = process([raw], whole, tokenizer.encoder)
    for length in range(full.length - 100, full.length, 20):
        for overlong, note in (("truncate_thoughts", THOUGHTS_TRUNCATED), ("truncate", END_TRUNCATED)):
            given = ProcessingConfig(template, StepSettings(), length, overlong, turns="all")  # type: ignore[arg-type]
            (short,) = process([raw], given, tokenizer.encoder, texts=True)
            assert short.reason is None and short.notes == (note,) and len(short.ids) <= length
            assert tags_balanced(short, tokenizer) or overlong == "truncate"
            if overlong == "truncate_thoughts":
                assert [short.thoughts.count(f"Now x is {i}.") for i in (0, 11)] == [2, 2]
                assert [text for role, text in runs(short, tokenizer) if role in (PROMPT, ANSWER, END)] == [
                    text for role, text in runs(full, tokenizer) if role in (PROMPT, ANSWER, END)
                ]
    history = ProcessingConfig(template, StepSettings(), 40, "truncate")
    assert process([raw], history, tokenizer.encoder)[0].reason == UNSUPERVISED


def test_a_template_without_a_place_drops_only_the_rows_that_need_it() -> None:
    tokenizer = chat_tokenizer("qwen1.5")
    given = ProcessingConfig(load_template("{{ messages[-1].content }}:", None, tokenizer))
    rows = [chat(*SAID[2:]), chat(*SAID), chat(*SAID[2:], system="Be brief.")]
    assert [one.reason for one in process(rows, given, tokenizer.encoder)] == [
        None, "data.template omits earlier messages", "data.template omits the system prompt of the row",
    ]  # fmt: skip


def test_a_message_that_makes_the_template_fail_drops_its_row_by_name() -> None:
    fails = (
        "{% for m in messages %}{{ raise_exception('no bad words') if 'bad' in m.content else m.content }}{% endfor %}:"
    )
    tokenizer = chat_tokenizer("qwen1.5")
    given = ProcessingConfig(load_template(fails, None, tokenizer))
    rows = [chat("a bad word", *SAID[1:]), chat(*SAID)]
    assert [one.reason for one in process(rows, given, tokenizer.encoder, texts=True)] == [
        "data.template fails for its messages (no bad words)", None,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("turns", "kept"), [("last", ["a", "b", "c"]), ("each", ["a/1", "b/2", "c/1", "c/2"]), ("all", ["a", "c"])]
)
def test_the_three_rows_of_the_docs_give_the_rows_that_the_docs_say(turns: Turns, kept: list[str]) -> None:
    text = (ROOT / "docs/data.md").read_text().partition("## Several turns")[2]
    rows = [json.loads(line) for line in text.splitlines() if line.startswith('{"id"')]
    given = [
        RawExample(row, row["id"], "all", tuple(Message(one["role"], one["content"]) for one in row["messages"]))
        for row in rows
    ]
    tokenizer = chat_tokenizer("qwen2.5")
    config = ProcessingConfig(load_template("chat", None, tokenizer), turns=turns)
    examples = [one for raw in given for one in (each_answer(raw) if turns == "each" else [raw])]
    done = process(examples, config, tokenizer.encoder)
    assert [one.row_id for one in done if one.reason is None] == kept
    assert len(done) == (5 if turns == "each" else 3)
