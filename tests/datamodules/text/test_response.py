"""Responses in every shape that models write are parsed under every policy and joined again."""

import contextlib
import random
import re
import time
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from datamodules.text.blank import is_blank
from datamodules.text.example import Example
from datamodules.text.malformed import NOTED, SHAPES, Fault, MalformedPolicy, MalformedResponse
from datamodules.text.response import Passage, parse, unparse
from datamodules.text.segments import Role, render
from datamodules.text.steps import StepSettings
from datamodules.text.tags import Tags
from tests.conftest import REAL_ROWS, TEMPLATE

LENIENT = MalformedPolicy.of("keep")
FENCE = "```html\n<think>x</think>\n```"


def thought(text: str) -> Passage:
    return Passage(text, thought=True)


def plain(text: str) -> Passage:
    return Passage(text, thought=False)


def policy(**overrides: str) -> MalformedPolicy:
    return MalformedPolicy.of("repair", overrides)


def rendered(passages: tuple[Passage, ...], tags: Tags = Tags()) -> str:  # noqa: B008 (frozen)
    """The text of a response as the model sees it in single-think mode."""
    written = {Role.TAG_OPEN: tags.open, Role.TAG_CLOSE: tags.close, Role.END: ""}
    segments = render(Example("Hi", passages), TEMPLATE, StepSettings(split="none"))
    return "".join(written.get(piece.role, piece.text) for piece in segments if piece.role != Role.PROMPT)


@pytest.mark.parametrize(
    ("response", "passages"),
    [
        ("<think>\nA. B.\n</think>\n\nx = 7", (thought("\nA. B.\n"), plain("\n\nx = 7"))),
        ("<think>a</think><think>b</think>c", (thought("a"), thought("b"), plain("c"))),
        ("<think>a</think>\n<think>b</think>c", (thought("a"), plain("\n"), thought("b"), plain("c"))),
        ("<think>a</think>\n<think>b</think>\nc\n", (thought("a"), plain("\n"), thought("b"), plain("\nc\n"))),
        ("<think>a</think>4", (thought("a"), plain("4"))),
        ("<think>\na</think>\n4", (thought("\na"), plain("\n4"))),
        ("\n<think>a\n</think>4", (plain("\n"), thought("a\n"), plain("4"))),
        ("<think>1 < 2, <thinking>, </ think></think>4", (thought("1 < 2, <thinking>, </ think>"), plain("4"))),
        ("<think>`x` and ```y```</think>`4`", (thought("`x` and ```y```"), plain("`4`"))),
        ("<think>a\rb\x0bc</think>4\u3000", (thought("a\rb\x0bc"), plain("4\u3000"))),
    ],
)
def test_well_formed_responses_are_taken_apart_and_joined_again(response: str, passages: tuple[Passage, ...]) -> None:
    assert parse(response) == (passages, ())
    assert unparse(passages) == rendered(passages) == response


# shape, action, response, passages; `ALSO` has the actions of further shapes in a response
KEPT_OR_REPAIRED = [
    ("missing_open", "repair", "I add.\n</think>\n\n4", (thought("I add.\n"), plain("\n\n4"))),
    ("missing_open", "repair", "a</think>b<think>c</think>d", (thought("a"), plain("b"), thought("c"), plain("d"))),
    ("unclosed", "repair", "<think>on and on", (thought("on and on"),)),
    ("unclosed", "repair", "<think>a</think>b<think>c", (thought("a"), plain("b"), thought("c"))),
    ("no_thought", "keep", "just 4", (plain("just 4"),)),
    ("no_thought", "keep", "a < b > c\n", (plain("a < b > c\n"),)),
    ("empty_thought", "keep", "<think>\n\n</think>\n\n4", (thought("\n\n"), plain("\n\n4"))),
    ("empty_thought", "keep", "<think></think>4", (thought(""), plain("4"))),
    ("empty_thought", "repair", "<think>\n\n</think>\n\n4", (plain("\n\n4"),)),
    ("empty_thought", "repair", "a<think> </think>b<think>c</think>d", (plain("ab"), thought("c"), plain("d"))),
    ("empty_thought", "repair", "<think>a</think>b<think> </think>c", (thought("a"), plain("bc"))),
    ("no_answer", "keep", "<think>a</think>", (thought("a"),)),
    ("no_answer", "keep", "<think>a</think>\n\n", (thought("a"), plain("\n\n"))),
    ("text_before", "keep", "Let me see. <think>a</think> 4", (plain("Let me see. "), thought("a"), plain(" 4"))),
    ("text_before", "repair", "Let me see. <think>a</think> 4", (thought("Let me see. a"), plain(" 4"))),
    ("text_before", "repair", "A <think> </think>4", (thought("A  "), plain("4"))),
    ("lone_close", "keep", "<think>a</think>4</think>!", (thought("a"), plain("4</think>!"))),
    ("lone_close", "repair", "<think>a</think>4</think>!", (thought("a"), plain("4!"))),
    ("lone_close", "keep", "a</think>b</think>c", (thought("a"), plain("b</think>c"))),
    ("lone_close", "repair", "<think>a</think>4</think>b<think>c</think>d",
     (thought("a"), plain("4b"), thought("c"), plain("d"))),
    ("nested", "keep", "<think>a<think>b</think>c</think>4", (thought("a<think>b</think>c"), plain("4"))),
    ("nested", "repair", "<think>a<think>b</think>c</think>4", (thought("abc"), plain("4"))),
    ("nested", "repair", "<think>a<think>b<think>c</think></think></think>4", (thought("abc"), plain("4"))),
    ("lone_close", "last_close", "<think>a</think>b</think>c", (thought("ab"), plain("c"))),
    ("lone_close", "last_close", "a</think>b</think>\nc</think>\n\nd", (thought("ab\nc"), plain("\n\nd"))),
    ("lone_close", "last_close", "<think>a</think>b<think>c</think>d</think>e", (thought("abcd"), plain("e"))),
    ("lone_close", "last_close", "Hi <think>a</think>b</think>c", (plain("Hi "), thought("ab"), plain("c"))),
    ("nested", "last_close", "<think>a<think>b</think>c", (thought("ab"), plain("c"))),
    ("nested", "last_close", "<think>a<think>b</think>c</think>d", (thought("abc"), plain("d"))),
    ("nested", "last_close", "<think>a</think>b<think>c<think>d</think>e", (thought("abcd"), plain("e"))),
    ("wrapped_answer", "keep", "<think>a</think>\n<answer> 4 </answer>\n",
     (thought("a"), plain("\n<answer> 4 </answer>\n"))),
    ("wrapped_answer", "repair", "<think>a</think>\n<answer> 4 </answer>\n", (thought("a"), plain("\n4\n"))),
    ("wrapped_answer", "repair", "<think>a</think>\n\n<|begin_of_solution|>\n\nx = 4\n<|end_of_solution|>",
     (thought("a"), plain("\n\nx = 4"))),
    ("wrapped_answer", "repair", "<think>a</think><|begin_of_answer|>4<|end_of_answer|>", (thought("a"), plain("4"))),
    ("zero_width", "keep", "\ufeff<think>\u200b\na</think>\n\u2060b",
     (plain("\ufeff"), thought("\u200b\na"), plain("\n\u2060b"))),
    ("zero_width", "repair", "\ufeff<think>\u200b\na\u200bb</think>\n\u2060c\ufeff",
     (thought("\na\u200bb"), plain("\nc"))),
    ("tags_in_code", "keep", f"<think>a</think>\n{FENCE}\nb", (thought("a"), plain(f"\n{FENCE}\nb"))),
    ("tags_in_code", "keep", f"<think>\n{FENCE}\n</think>b", (thought(f"\n{FENCE}\n"), plain("b"))),
    ("tags_in_code", "keep", f"<think>\n{FENCE}\n</think>b".replace("```", "  ~~~~"),
     (thought(f"\n{FENCE}\n".replace("```", "  ~~~~")), plain("b"))),
    ("tags_in_code", "keep", "<think>It says `</think>`.</think>Write `<think>` first.",
     (thought("It says `</think>`."), plain("Write `<think>` first."))),
    ("tags_in_code", "keep", "<think>``a`</think>``</think>b", (thought("``a`</think>``"), plain("b"))),
    ("tags_in_code", "keep", "`</think>` ends it.", (plain("`</think>` ends it."),)),
    ("tags_in_code", "keep", "a\n```\n</think>\n```\nb</think>c", (thought("a\n```\n</think>\n```\nb"), plain("c"))),
    ("windows_lines", "keep", "<think>\r\na\r\n</think>\r\n\r\n4", (thought("\r\na\r\n"), plain("\r\n\r\n4"))),
    ("windows_lines", "repair", "<think>\r\na\r\n</think>\r\n\r4", (thought("\na\n"), plain("\n\r4"))),
    ("odd_lines", "keep", "<think>a\u2028b</think>4\x85", (thought("a\u2028b"), plain("4\x85"))),
    ("odd_lines", "repair", "<think>a\u2028b\u2029</think>4\x85", (thought("a\nb\n"), plain("4\n"))),
    ("damaged", "keep", "<think>a\ufffd</think>4", (thought("a\ufffd"), plain("4"))),
    ("repetition", "keep", f"<think>{'Wait. ' * 5000}</think>4", (thought("Wait. " * 5000), plain("4"))),
]  # fmt: skip
ALSO: dict[str, dict[str, str]] = {
    "unclosed": {"no_answer": "keep"},
    "nested": {"lone_close": "keep"},
    "tags_in_code": {"no_thought": "keep"},
}


@pytest.mark.parametrize(
    ("shape", "action", "response", "passages"), KEPT_OR_REPAIRED, ids=lambda value: repr(value)[:40]
)
def test_a_malformed_shape_is_kept_or_repaired_by_its_action(
    shape: str, action: str, response: str, passages: tuple[Passage, ...]
) -> None:
    found, notes = parse(response, Tags(), policy(**{shape: action}, **ALSO.get(shape, {})))
    assert found == passages
    assert f"{SHAPES[shape].description} ({NOTED[action]})" in notes
    if action == "keep":
        assert unparse(passages) in (response, f"<think>{response}")
    assert rendered(found) == unparse(found)


@pytest.mark.parametrize(
    ("shape", "response"), sorted({(shape, response) for shape, _, response, _ in KEPT_OR_REPAIRED}), ids=str
)
def test_a_malformed_shape_is_dropped_with_its_name_and_setting(shape: str, response: str) -> None:
    with pytest.raises(MalformedResponse) as refused:
        parse(response, Tags(), MalformedPolicy.of("keep", {shape: "drop"}))
    assert str(refused.value) == f"{SHAPES[shape].description} (data.malformed_overrides.{shape})"


def test_every_action_of_every_shape_is_tried_above() -> None:
    tried = {name: {"drop"} | {action for shape, action, _, _ in KEPT_OR_REPAIRED if shape == name} for name in SHAPES}
    assert tried == {name: set(shape.actions) for name, shape in SHAPES.items()}


@pytest.mark.parametrize(
    ("response", "policies", "reason"),
    [
        ("", {}, "empty response"),
        (" \n\u2028", {}, "empty response"),
        ("<think>a\ud800</think>4", {}, "not valid UTF-8"),
        ("<think>a</think>4\udcff", {}, "not valid UTF-8"),
        ("\ufeff\u200b\n", {}, "empty response"),
        ("<think>on and on", {}, "unclosed no_answer"),
        ("<think>a</think>b<think>c", {}, "unclosed no_answer"),
        ("<think>", LENIENT.actions | {"empty_thought": "repair"}, "no text left after repairs"),
        ("</think>\n", LENIENT.actions | {"empty_thought": "repair"}, "no text left after repairs"),
        ("<think>a</think>", {}, "no_answer"),
        ("<think>a</think>\u200b\ufeff", {}, "no_answer"),
        ("<think>a</think>\n<answer>\n</answer>", {}, "no_answer"),
        ("<think>a</think>\n</answer>", {}, "no_answer"),
        ("<think>a</think><answer>4</think></answer>", {"lone_close": "last_close"}, "no_answer"),
        ("<think>a", {"unclosed": "repair"}, "no_answer"),
        ("<think> ", {"unclosed": "repair"}, "empty_thought no_answer"),
        ("<think>\n\u200b\u200d</think>4", {}, "empty_thought"),
        ("</think>4", {}, "empty_thought"),
        ("<think>a</think>b</think>\n", {}, "lone_close"),
        ("<think>a</think>b</think>\n", {"lone_close": "last_close"}, "no_answer"),
        ("<think>a</think>b</think>c<think>d", {"lone_close": "last_close"}, "unclosed no_answer"),
        ("<think>a<think>b</think>4", {}, "nested unclosed no_answer"),
        ("<think>a<think>b</think>4", {"nested": "keep"}, "unclosed no_answer"),
        ("<think>a</think><think> </think>\ufffdb</think>", {}, "damaged empty_thought lone_close"),
        ("a\r\nb", {"no_thought": "drop"}, "no_thought"),
    ],
)
def test_responses_are_dropped_with_their_reason(response: str, policies: dict[str, Any], reason: str) -> None:
    with pytest.raises(MalformedResponse) as refused:
        parse(response, Tags(), policy(**policies))
    reasons = [
        f"{SHAPES[one].description} (data.malformed_overrides.{one})" if one in SHAPES else reason
        for one in (reason.split() if reason.split()[0] in SHAPES else [reason])
    ]
    assert sorted(fault.reason for fault in refused.value.faults) == sorted(reasons)
    assert str(refused.value) == "; ".join(fault.reason for fault in refused.value.faults)


@pytest.mark.parametrize(
    ("response", "places"),
    [
        ("<think>a</think>b</think>c", {"lone_close": 17}),
        ("<think>a<think>b</think>c", {"nested": 8, "unclosed": 0, "no_answer": 25}),
        ("a</think>b</think>c<think>d", {"lone_close": 10, "unclosed": 19, "no_answer": 27}),
        ("<think>a</think>b<think>\n</think>c\ufffd", {"empty_thought": 17, "damaged": 34}),
        ("just 4", {"no_thought": None}),
    ],
)
def test_the_place_of_each_fault_is_told(response: str, places: dict[str, int | None]) -> None:
    with pytest.raises(MalformedResponse) as refused:
        parse(response)
    reasons = {f"{SHAPES[name].description} (data.malformed_overrides.{name})": at for name, at in places.items()}
    assert dict(refused.value.faults) == reasons


def test_a_block_that_opens_after_the_last_closing_tag_has_its_place() -> None:
    with pytest.raises(MalformedResponse) as refused:
        parse("a</think>b</think>c<think>d", Tags(), MalformedPolicy.of("last_close"))
    assert [fault.at for fault in refused.value.faults] == [19, 27]


def test_no_place_is_told_if_repaired_line_ends_have_moved_it() -> None:
    with pytest.raises(MalformedResponse) as refused:
        parse("<think>a\r\n</think>b</think>c", Tags(), policy(windows_lines="repair"))
    assert refused.value.faults == (
        Fault("closing tag without an opening one (data.malformed_overrides.lone_close)", None),
    )


@pytest.mark.parametrize(
    ("response", "passages"),
    [
        # the notes of a user's editor, or a joiner of another script, are part of the text
        ("<think>می\u200cخواهم</think>\u200fمرحبا", (thought("می\u200cخواهم"), plain("\u200fمرحبا"))),
        ("<think>👩\u200d👧</think>क्\u200dष", (thought("👩\u200d👧"), plain("क्\u200dष"))),
        ("<think>a\u200bb</think>4", (thought("a\u200bb"), plain("4"))),
        # characters that no reader sees are no text before the first block
        ("\u200e<think>a</think>4", (plain("\u200e"), thought("a"), plain("4"))),
    ],
)
def test_joiners_stay_and_are_no_malformed_shape(response: str, passages: tuple[Passage, ...]) -> None:
    assert parse(response) == (passages, ())


@pytest.mark.parametrize(
    "answer",
    [
        "So: <answer>4</answer>",
        "<answer>4</answer> or 5",
        "<answer>4",
        "4</answer>",
        "<answer>4<answer>5</answer></answer>",
    ],
)
def test_tags_around_a_part_of_an_answer_are_text(answer: str) -> None:
    for action in ("keep", "repair"):
        assert parse(f"<think>a</think>{answer}", Tags(), policy(wrapped_answer=action)) == (
            (thought("a"), plain(answer)),
            (),
        )


def test_the_dial_last_close_takes_all_before_the_last_closing_tag_for_thinking() -> None:
    last_close = MalformedPolicy.of("last_close")
    for response, expected in (
        ("<think>a</think>b</think>c", (thought("ab"), plain("c"))),
        ("Hi. <think>a</think>b</think>c", (thought("Hi. ab"), plain("c"))),
        ("Hi. <think>a</think>c", (thought("Hi. a"), plain("c"))),
        ("a</think>b<think>c</think>d</think>e", (thought("abcd"), plain("e"))),
        ("<think>a</think>b<think>c</think>d", (thought("a"), plain("b"), thought("c"), plain("d"))),  # well-formed
    ):
        assert parse(response, Tags(), last_close)[0] == expected
    with pytest.raises(MalformedResponse, match="never closed"):
        parse("<think>a</think>b</think>c<think>d", Tags(), last_close)


def test_every_malformed_shape_is_noted_once() -> None:
    passages, notes = parse(
        "a\r\n</think>b</think></think>\ufffd\u2028", Tags(), policy(lone_close="keep", damaged="keep")
    )
    assert passages == (thought("a\r\n"), plain("b</think></think>\ufffd\u2028"))
    assert notes == (
        "Windows line ends (kept)",
        "U+2028, U+2029 or U+0085 as line ends (kept)",
        "U+FFFD in place of a lost character (kept)",
        "no opening tag (repaired)",
        "closing tag without an opening one (kept)",
    )


@pytest.mark.parametrize(
    ("response", "passages"),
    [
        # an open fence in the thought, with a fence in the answer: the closing tag is not code
        ("<think>a\n```\nb</think>\n```\nc\n```\n", (thought("a\n```\nb"), plain("\n```\nc\n```\n"))),
        ("<think>a\n```py\nb</think>c\n```\nd", (thought("a\n```py\nb"), plain("c\n```\nd"))),
        ("<think>a ` b</think>c ` d", (thought("a ` b"), plain("c ` d"))),
        ("<think>a ` b</think>\nc ` d", (thought("a ` b"), plain("\nc ` d"))),
        ("<think>a\n```\nb</think>c", (thought("a\n```\nb"), plain("c"))),
        # marks of different lengths do not enclose code
        ("<think>a `` b</think>c ` d", (thought("a `` b"), plain("c ` d"))),
        ("<think>a\n````\nb</think>c\n```\nd", (thought("a\n````\nb"), plain("c\n```\nd"))),
    ],
)
def test_a_closing_tag_counts_after_unclosed_code(response: str, passages: tuple[Passage, ...]) -> None:
    assert parse(response) == (passages, ())


def test_code_fences_end_at_windows_line_ends_too() -> None:
    response = "<think>a</think>\r\n```\r\n<think>\r\n```\r\nb"
    passages, notes = parse(response)
    assert passages == (thought("a"), plain("\r\n```\r\n<think>\r\n```\r\nb"))
    assert "think tags in code (kept)" in notes


OTHER_TAGS = [
    Tags("<thinking>", "</thinking>"),
    Tags("<|begin_of_thought|>", "<|end_of_thought|>"),
    Tags("[THINK]", "[/THINK]"),
    Tags("(a|b)*", "$^."),
]


@pytest.mark.parametrize("tags", OTHER_TAGS, ids=lambda tags: tags.open)
@pytest.mark.parametrize(
    ("shape", "action", "response", "passages"), KEPT_OR_REPAIRED, ids=lambda value: repr(value)[:40]
)
def test_other_tags_are_read_like_think_tags(
    tags: Tags, shape: str, action: str, response: str, passages: tuple[Passage, ...]
) -> None:
    def other(text: str) -> str:
        return text.replace("<think>", tags.open).replace("</think>", tags.close)

    found, _ = parse(other(response), tags, policy(**{shape: action}, **ALSO.get(shape, {})))
    assert found == tuple(Passage(other(text), is_thought) for text, is_thought in passages)


def test_only_the_given_tags_are_tags() -> None:
    passages, _ = parse("[THINK]<think>a</think>[/THINK]<think>", Tags("[THINK]", "[/THINK]"))
    assert passages == (thought("<think>a</think>"), plain("<think>"))


def words(count: int, seed: int = 0) -> str:
    """Text with few words and no repetition, which compresses at least as well as a long real thought."""
    chosen = random.Random(seed).choices("so then we add two to x and get y if it holds but wait no".split(), k=count)
    return " ".join(chosen)


@pytest.mark.parametrize(
    "body",
    [
        words(80_000),
        "\n".join(f"```py\n{words(6, seed)}" for seed in range(11_000)),
        "\n".join(f"{'`' * seed} {words(4, seed)}" for seed in range(760)),
        "".join(f"a ` b `` {seed}" for seed in range(25_000)),
        "".join(f"{seed} `</think>` <think> \u2028\r\n" for seed in range(10_000)),
        "".join(f"<think>{seed}" for seed in range(27_000)),
        "".join(f"{seed}</think>" for seed in range(25_000)),
        "x" * 300_000,
        " " * 299_990 + "a",
    ],
    ids=["words", "open fences", "longer backticks", "open backticks", "code", "opens", "closes", "one", "space"],
)
def test_answers_of_300_000_characters_lose_nothing(body: str) -> None:
    """A pattern with quadratic time would take minutes here."""
    for response in (f"<think>{body}</think>{body}", f"<think>a</think>{body}", body):
        passages, notes = parse(response, Tags(), LENIENT)
        came_back = unparse(passages)
        if "no opening tag (repaired)" in notes:
            came_back = came_back.removeprefix("<think>")
        if "think block never closed (repaired)" in notes:
            came_back = came_back.removesuffix("</think>")
        assert came_back == response
        assert max(len(passage.text) for passage in passages) > 0


@pytest.mark.parametrize(
    "piece",
    ["a<think></think>", "<think>", "</think>", "\u200b", "\ufeff ", " ", "<answer>", "<answer>a</answer>",
     "`</think>` ", "```\n</think>\n", "\r\n", "\u2028", "Wait. ", "</think><answer> "],
)  # fmt: skip
def test_hostile_text_takes_no_quadratic_time(piece: str) -> None:
    body = piece * (200_000 // len(piece))
    for response in (body, f"<think>{body}</think>4", f"<think>a</think><answer>{body}</answer>"):
        for chosen in (MalformedPolicy(), MalformedPolicy.of("last_close"), REPAIRING):
            start = time.process_time()
            with contextlib.suppress(MalformedResponse):
                parse(response, Tags(), chosen)
            assert time.process_time() - start < 10  # quadratic time would be minutes


MANY = settings(max_examples=500, deadline=None)
PIECES = st.lists(
    st.sampled_from(
        ["<think>", "</think>", "<think>", "</think>", "a", "b.", " ", "\n", "<", "think>", "é", "`", "``", "```",
         "\n```\n", "\n~~~\n", "\r\n", "\u2028", "\x85", "\ufffd", "\ufeff", "\u200b", "\u200d", "<answer>",
         "</answer>"]
    ),
    max_size=14,
).map("".join)  # fmt: skip
POLICIES = st.builds(
    MalformedPolicy, st.fixed_dictionaries({name: st.sampled_from(shape.actions) for name, shape in SHAPES.items()})
)
CHANGED = ("(repaired)", "(last_close)")  # ends of the notes of a response that does not come back byte for byte
REPAIRED_BY = {"<think>": "no opening tag (repaired)", "</think>": "think block never closed (repaired)"}


def closed(response: str, notes: tuple[str, ...]) -> str:
    """The response with the repaired tags at its ends."""
    before, after = (tag if note in notes else "" for tag, note in REPAIRED_BY.items())
    return before + response + after


@MANY
@given(PIECES, POLICIES)
def test_an_unrepaired_response_comes_back_byte_for_byte(response: str, chosen: MalformedPolicy) -> None:
    try:
        passages, notes = parse(response, Tags(), chosen)
    except MalformedResponse:
        return
    repairs = {note for note in notes if note.endswith(CHANGED)} - set(REPAIRED_BY.values())
    if not repairs:
        assert unparse(passages) == rendered(passages) == closed(response, notes)
    for shape in SHAPES:
        assert chosen.actions[shape] != "drop" or not any(
            note.startswith(f"{SHAPES[shape].description} (") for note in notes
        )


@MANY
@given(PIECES, POLICIES)
def test_passages_have_only_the_shapes_that_the_policy_keeps(response: str, chosen: MalformedPolicy) -> None:
    try:
        passages, _ = parse(response, Tags(), chosen)
    except MalformedResponse:
        return
    assert passages
    assert all(passage.text for passage in passages if not passage.thought)
    assert not any(a.thought is b.thought is False for a, b in pairwise(passages))
    if chosen.actions["empty_thought"] != "keep":
        assert not any(is_blank(passage.text) for passage in passages if passage.thought)
    if chosen.actions["no_answer"] != "keep":
        assert not passages[-1].thought and not is_blank(passages[-1].text)
    if chosen.actions["text_before"] != "keep" and any(passage.thought for passage in passages):
        assert passages[0].thought or is_blank(passages[0].text) or chosen.actions["empty_thought"] == "repair"
    if chosen.actions["windows_lines"] == "repair":
        assert "\r\n" not in unparse(passages)
    if chosen.actions["odd_lines"] == "repair":
        assert not set("\u2028\u2029\x85") & set(unparse(passages))


REPAIRING = MalformedPolicy.of("keep", {name: "repair" for name, shape in SHAPES.items() if "repair" in shape.actions})


@MANY
@given(PIECES)
def test_a_policy_without_drop_refuses_only_responses_without_text(response: str) -> None:
    if is_blank(response):
        with pytest.raises(MalformedResponse, match=r"^empty response$"):
            parse(response, Tags(), LENIENT)
        return
    passages, notes = parse(response, Tags(), LENIENT)
    assert unparse(passages) == closed(response, notes)
    if not is_blank(re.sub("</?(think|answer)>", "", response)):
        parse(response, Tags(), REPAIRING)
    elif "answer>" not in response:  # think tags around nothing; a single <answer> is text
        with pytest.raises(MalformedResponse, match=r"^no text left after repairs$"):
            parse(response, Tags(), REPAIRING)


def test_a_repaired_response_needs_no_repair() -> None:
    for _, _, response, _ in KEPT_OR_REPAIRED:
        passages, _ = parse(response, Tags(), REPAIRING)
        again, notes = parse(unparse(passages), Tags(), REPAIRING)
        assert again == passages
        assert not any(note.endswith("(repaired)") for note in notes)


def test_r1s_answers_come_back_byte_for_byte(r1_rows: list[dict[str, str]]) -> None:
    """Each malformed answer is counted by its kind."""
    counts: dict[str, int] = {}
    for row in r1_rows:
        try:
            passages, notes = parse(row["response"])
        except MalformedResponse as malformed:
            passages, notes = (), (str(malformed),)
        for note in notes:
            counts[note] = counts.get(note, 0) + 1
        if passages:
            assert unparse(passages) == rendered(passages) == closed(row["response"], notes)
            assert all(text.strip() for text, is_thought in passages if is_thought)
    found = {note: count for note, count in counts.items() if "data.malformed" in note or "repaired" in note}
    if REAL_ROWS:  # one answer has no tag and repeats itself
        dropped = [
            "endless repetition (data.malformed_overrides.repetition)",
            "no think block (data.malformed_overrides.no_thought)",
        ]
        assert found == {"no opening tag (repaired)": 79, "; ".join(dropped): 1}
    else:
        assert found["no opening tag (repaired)"] == sum("no opening tag" in row["source"] for row in r1_rows) > 0


@settings(max_examples=300)
@given(st.lists(st.sampled_from(["<think>", "</think>", " ", "a", "`", "```\n", "\r\n"]), max_size=7))
@example(["```\n", "```\n", "<think>", "</think>", "<think>"])  # the moved text was counted twice
def test_the_place_of_each_fault_is_in_the_response(pieces: list[str]) -> None:
    response = "".join(pieces)
    faults: list[Fault] = []
    for dial in ("strict", "repair", "last_close"):
        try:
            parse(response, Tags(), MalformedPolicy.of(dial))
        except MalformedResponse as malformed:
            faults += malformed.faults
    assert all(at is None or 0 <= at <= len(response) for _, at in faults)
