"""The state machine, driven by random logits: no model is needed for what it promises."""

from itertools import groupby
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from datamodules.tokens.tokenizer import ThinkTokenizer
from errors import UserError
from lightning_modules.generation.decoding import DecodingSettings
from lightning_modules.generation.think_response import respond
from lightning_modules.generation.token_choice import Written
from tests.lightning_modules.generation.drive import Logits, drive, drive_one, ids_of, scripted


def random_logits(tokenizer: ThinkTokenizer, seed: int, bias: dict[int, float]) -> Logits:
    """A model that likes some tokens more than others."""
    liked = torch.zeros(len(tokenizer))
    for token, more in bias.items():
        liked[token] += more

    def logits(row: int, step: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed + 1_000 * row + step)
        return torch.randn(len(tokenizer), generator=generator) * 3 + liked

    return logits


@st.composite
def controls(draw: st.DrawFn) -> dict[str, Any]:
    """Settings of a response of 40 tokens at most."""

    def maybe(most: int, least: int = 0) -> int | None:
        return draw(st.none() | st.integers(least, most))

    return {
        "grammar": draw(st.booleans()),
        "thinking": draw(st.sampled_from([True, True, True, False])),
        "thinking_budget": maybe(20),
        "thought_budget": maybe(12, 1),
        "max_thoughts": maybe(4, 1),
        "min_thinking": draw(st.sampled_from([0, 0, 3, 9])),
        "answer_reserve": draw(st.sampled_from([0, 1, 2, 5, 20, 36])),
        "cut_message": draw(st.sampled_from(["", " I must stop.", "\n", " é好"])),
        "extend": draw(st.sampled_from([0, 0, 1, 2])),
        "extend_text": draw(st.sampled_from(["Wait,", "", "\n", "Hm 好"])),
        "loop_tokens": draw(st.sampled_from([0, 0, 1, 2, 3])),
        "loop_repeats": draw(st.sampled_from([2, 3])),
    }


@st.composite
def biases(draw: st.DrawFn, tokenizer: ThinkTokenizer) -> dict[int, float]:
    """Tags, the end, white space, bytes of characters, a control token: what the machine must handle."""
    known = ids_of(tokenizer, "[", "]", ".", "\n", " ", "好", "\u3000", "🙂", "x")
    known += [tokenizer.control_ids["<|im_start|>"]]
    return {token: draw(st.sampled_from([0.0, 0.0, 5.0, 9.0, 14.0])) for token in dict.fromkeys(known)}


def thoughts_of(tokenizer: ThinkTokenizer, written: Written) -> list[list[int]]:
    """The ids of each thought, also of one that is never closed."""
    ids = [tokenizer.open_id] * written.opened + written.ids
    starts = [k for k, token in enumerate(ids) if token == tokenizer.open_id]
    stops = (tokenizer.close_id, tokenizer.end_id)
    ends = [next((k for k in range(start, len(ids)) if ids[k] in stops), len(ids)) for start in starts]
    return [ids[start + 1 : end] for start, end in zip(starts, ends, strict=True)]


@given(data=st.data(), seed=st.integers(0, 10**6), opened=st.booleans(), temperature=st.sampled_from([0.0, 1.0]))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_promise_holds_for_any_model_and_any_settings(
    tiny_tokenizer: ThinkTokenizer, data: st.DataObject, seed: int, opened: bool, temperature: float
) -> None:
    chosen = data.draw(controls())
    known = DecodingSettings(max_new_tokens=40, temperature=temperature, **chosen)
    try:
        known.check(tiny_tokenizer)
    except UserError:
        assume(False)
    assume(known.controlled)
    logits = random_logits(tiny_tokenizer, seed, data.draw(biases(tiny_tokenizer)))
    prompt = [5, tiny_tokenizer.open_id] if opened else [5, tiny_tokenizer.open_id, 6, tiny_tokenizer.close_id]
    together = drive(tiny_tokenizer, logits, (0, 1, 2), [prompt], temperature=temperature, **chosen)
    (alone,) = drive(tiny_tokenizer, logits, (1,), [prompt], temperature=temperature, **chosen)
    assert alone._replace(masked=None) == together[1]._replace(masked=None)
    for written in together:
        check_promises(tiny_tokenizer, known, written)


def check_promises(tokenizer: ThinkTokenizer, known: DecodingSettings, written: Written) -> None:
    response = respond(written, tokenizer, [tokenizer.end_id])
    thoughts = thoughts_of(tokenizer, written)
    tags = [token for token in written.ids if token in (tokenizer.open_id, tokenizer.close_id)]
    pair = [tokenizer.close_id, tokenizer.open_id][:: 1 if written.opened else -1]
    assert tags == (pair * 40)[: len(tags)], "tags stand in pairs"
    assert sum(map(len, thoughts)) == response.thinking_tokens
    allowed = known.thinking_budget if known.thinking else 0
    assert allowed is None or response.thinking_tokens <= allowed
    assert all(len(thought) <= (known.thought_budget or 99) for thought in thoughts)
    assert len(thoughts) <= (known.max_thoughts or 99) if known.thinking else len(thoughts) == written.opened
    assert written.masked is not None and 0 <= written.masked <= 1
    assert "\ufffd" not in response.text or (not response.finished and known.answer_reserve == 0)
    assert "\ufffd" not in "".join(response.thoughts)
    if known.answer_reserve and (known.grammar or not response.finished):
        assert len(thoughts) == len(response.thoughts), "a thought is left open"
    if known.grammar:
        closed_at_once = written.opened and allowed == 0
        assert closed_at_once or all(thought.strip() for thought in response.thoughts)
        assert "<|im_start|>" not in response.text
        if known.answer_reserve or response.finished or not known.thinking:
            assert response.balanced and response.answer.strip()
            assert response.thoughts or allowed == 0
    least = min(known.min_thinking, 40)
    if response.thinking_tokens < least:
        assert written.cut in ("limit", "loop") or len(written.ids) > 40 - 3 - known.answer_reserve - least
    check_forced(tokenizer, known, written)


def check_forced(tokenizer: ThinkTokenizer, known: DecodingSettings, written: Written) -> None:
    """Exactly the documented tokens are forced."""
    message, again = tokenizer.encode([known.cut_message if known.cuts else "", known.extend_text])
    cut, again = [*message, tokenizer.close_id], [tokenizer.open_id, *again]
    pairs = groupby(zip(written.forced, written.ids, strict=True), lambda pair: pair[0])
    spans = [[token for _, token in span] for by_force, span in pairs if by_force]
    whole = [cut, [tokenizer.close_id], again, cut + again, [tokenizer.close_id, *again], again + cut]
    ended = not written.ids or written.ids[-1] != tokenizer.end_id
    for k, span in enumerate(spans):
        last = k == len(spans) - 1 and ended and written.forced[-1]  # the limit may come within one
        assert any(one[: len(span)] == span if last else one == span for one in whole), (span, whole)
    assert sum(span.count(tokenizer.open_id) for span in spans) <= known.extend
    assert (written.cut is not None) == any(tokenizer.close_id in span for span in spans) or (written.cut and ended)


FIVE = ("[", *"abcde")


@pytest.mark.parametrize(
    ("pieces", "given", "expected", "ended_by"),
    [
        ((*FIVE, "]", "x"), {"thinking_budget": 5}, "<think>abcde</think>x", "end"),  # closed by the model, not cut
        ((*FIVE, "f", "x"), {"thinking_budget": 5}, "<think>abcde⟦</think>⟧x", "budget"),
        ((*FIVE[:3], "_", "x"), {"thinking_budget": 2}, "<think>ab⟦</think>⟧x", "budget"),
        (("[", "a", "x"), {"thinking_budget": 0}, "", "end"),  # without grammar it may end at once
        (("[", "a", "x"), {"thinking": False, "grammar": True}, "xax", "end"),
        (("[", "a", "_", "_", "x"), {"thinking_budget": 2, "cut_message": "!"}, "<think>a⟦!</think>⟧x", "budget"),
        (  # one token is left, too few for a thought with the message
            ("[", "a", "_", "_", "[", "b"),
            {"thinking_budget": 3, "thought_budget": 2, "cut_message": "!"},
            "<think>a⟦!</think>⟧",
            "budget",
        ),
        (("[", "a", "_", "[", "c", "]", "x"), {"thought_budget": 1}, "<think>a⟦</think>⟧<think>c</think>x", "budget"),
        (("[", "a", "]", "[", "b", "]"), {"thinking_budget": 1, "grammar": True}, "<think>a</think>xb", "end"),
        (("[", "a", "]", "[", "b", "]"), {"max_thoughts": 1, "grammar": True}, "<think>a</think>xb", "end"),
        (("[", "a", "]", *"______", "b", "]"), {"extend": 1}, "<think>a</think>⟦<think>Wait,⟧b</think>", "end"),
        (("[", "a", "]", "x", "b", "]"), {"extend": 1, "extend_text": ""}, "<think>a</think>⟦<think>⟧b</think>", "end"),
        (("[", "a", "]", "[", "b", "b", "]"), {"min_thinking": 3}, "<think>a</think><think>bb</think>", "end"),
        (("[", "a", "]", "x", "x", "]"), {"min_thinking": 3, "max_thoughts": 1}, "<think>axxx</think>", "end"),
        (("[", "]", ".", "]", ".", "]", "y"), {"grammar": True}, "<think>xx</think>x", "end"),
        (("a", ".", "[", "]", "c"), {"grammar": True}, "<think>xx</think>c", "end"),
        (("[", "a", "]", "<", "\n", "[", "b"), {"grammar": True}, "<think>a</think><\n", "end"),
        (("[", "a", "]", "\n", "[", "b", "]", "x"), {"grammar": True}, "<think>a</think>\n<think>b</think>x", "end"),
        (("[", *"abc", "_", *"xyz"), {"answer_reserve": 3, "max_new_tokens": 8}, "<think>abc⟦</think>⟧xyz", "limit"),
        (("[", *"abab", "_", "x", "[", "y"), {"loop_tokens": 2, "loop_repeats": 2}, "<think>abab⟦</think>⟧x", "loop"),
    ],
)  # fmt: skip
def test_what_is_written(
    pieces: tuple[str, ...], given: dict[str, Any], expected: str, ended_by: str, tiny_tokenizer: ThinkTokenizer
) -> None:
    response = drive_one(tiny_tokenizer, scripted(tiny_tokenizer, *pieces), **given)
    assert (response.raw.removesuffix("<|im_end|>"), response.ended_by) == (expected, ended_by)
