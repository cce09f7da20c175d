"""The parser for vLLM, on a stand-in of vLLM's base class, and on vLLM's own where it is installed."""

import itertools
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from commands.openai_api.reply import BETWEEN, Response
from datamodules.text.tags import Tags
from datamodules.tokens.tokenizer import ThinkTokenizer
from lightning_modules.generation.sections import SectionReader
from lightning_modules.generation.think_response import parse_response
from lightning_modules.generation.token_choice import Written
from lightning_modules.servers.vllm_parser import parser_text
from tests.stand_ins.vllm_base import put_in_place_of_vllm

OPEN, CLOSE = "<think>", "</think>"
END = (7, 8, 9)  # of each prompt
BASES = ["stand-in"] + (["vllm"] if find_spec("vllm") else [])  # test_on_vllm.py puts vLLM in reach
# Texts that could begin a tag, end a sentence or are white space, and any other text
PIECES = st.one_of(
    st.sampled_from([OPEN, CLOSE, OPEN, CLOSE]),
    st.sampled_from(["a", "7.", " ", "\n\n", "<", "</", "<thi", "think>", "好", "🙂", "<b>", "  x \n"]),
    st.text(max_size=6),
)
EVERY = settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
Make = Callable[[], Any]


def imported(path: Path) -> Any:
    spec = spec_from_file_location("think_blocks_parser", path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules["think_blocks_parser"] = module
    spec.loader.exec_module(module)
    return module


def written(folder: Path, tags: Tags = Tags(), end: tuple[int, ...] = END) -> Path:  # noqa: B008 (frozen)
    path = folder / "think_blocks_parser.py"
    path.write_text(parser_text(tags, end), encoding="utf-8")
    return path


@pytest.fixture(params=BASES)
def make(
    request: Any, tmp_path: Path, tiny_tokenizer: ThinkTokenizer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Make]:
    """A function that makes a parser, as vLLM does for each request."""
    path = written(tmp_path)
    if request.param == "vllm":
        from vllm.reasoning import ReasoningParserManager

        ReasoningParserManager.import_reasoning_parser(str(path))
        kind: Any = ReasoningParserManager.get_reasoning_parser("think_blocks")
    else:
        put_in_place_of_vllm(monkeypatch)
        kind = imported(path).ThinkBlocksParser
    yield lambda: kind(tiny_tokenizer.full)
    sys.modules.pop("think_blocks_parser", None)


def ids_of(pieces: list[str], tokenizer: ThinkTokenizer) -> list[int]:
    tags = {OPEN: [tokenizer.open_id], CLOSE: [tokenizer.close_id]}
    return [i for piece in pieces for i in tags.get(piece) or tokenizer.encode([piece])[0]]


def chunks(text: str, cuts: list[int]) -> list[str]:
    places = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    return [text[a:b] for a, b in itertools.pairwise(places)]


def reasoning_of(delta: Any) -> str:
    """The reasoning in a part of a stream, by the field of newer or older versions."""
    field = "reasoning" if hasattr(delta, "reasoning") else "reasoning_content"
    return getattr(delta, field) or ""


def streamed(parser: Any, texts: list[str], last_ids: list[int]) -> tuple[str | None, str | None]:
    """The joined deltas of a stream. A parser may use the ids of the end only, which come with the last text."""
    before, reasoning, content = "", "", ""
    for k, text in enumerate(texts):
        ids = last_ids if k == len(texts) - 1 else []
        delta = parser.extract_reasoning_streaming(before, before + text, text, [], [], ids)
        before += text
        if delta is not None:
            thought = reasoning_of(delta)
            assert thought or delta.content, "an empty delta"
            reasoning, content = reasoning + thought, content + (delta.content or "")
    return reasoning or None, content or None


def served(ids: list[int], tokenizer: ThinkTokenizer) -> tuple[str | None, str | None]:
    """The joined thoughts and the answer in a reply of `serve`."""
    response = Response(SectionReader(tokenizer, [tokenizer.end_id]))
    response.take(ids)
    response.end(Written(ids, False))
    return BETWEEN.join(one for one in response.thoughts if one) or None, response.answer or None


@EVERY
@given(st.lists(PIECES, max_size=12), st.lists(st.integers(0, 200), max_size=12))
def test_a_stream_cut_anywhere_gives_the_whole_texts(
    make: Make, tiny_tokenizer: ThinkTokenizer, pieces: list[str], cuts: list[int]
) -> None:
    """Also where a tag is cut by the hold-back of stop texts, and where the model spelled it in letters."""
    text = tiny_tokenizer.decode(ids_of(pieces, tiny_tokenizer))
    whole = make().extract_reasoning(text, None)
    assert streamed(make(), chunks(text, cuts), [tiny_tokenizer.end_id]) == whole


@EVERY
@given(st.lists(PIECES, max_size=12), st.lists(st.integers(0, 200), max_size=12))
def test_a_stream_that_was_cut_off_lacks_at_most_the_beginning_of_a_tag(
    make: Make, tiny_tokenizer: ThinkTokenizer, pieces: list[str], cuts: list[int]
) -> None:
    text = tiny_tokenizer.decode(ids_of(pieces, tiny_tokenizer))
    parser = make()
    whole, found = parser.extract_reasoning(text, None), streamed(parser, chunks(text, cuts), [])
    for one, two in zip(whole, found, strict=True):
        lacking = (one or "").removeprefix(two or "").strip()
        assert (one or "").startswith(two or "")
        assert not lacking or OPEN.startswith(lacking) or CLOSE.startswith(lacking)
    rest = parser.get_streaming_fallback_content(text, None)
    assert ((found[1] or "") + (rest or "") or None) == whole[1]


@EVERY
@given(st.lists(PIECES, max_size=12))
def test_the_texts_are_those_of_serve(make: Make, tiny_tokenizer: ThinkTokenizer, pieces: list[str]) -> None:
    ids = ids_of(pieces, tiny_tokenizer)
    text = tiny_tokenizer.decode(ids)
    tags = sum(one in (tiny_tokenizer.open_id, tiny_tokenizer.close_id) for one in ids)
    if text.count(OPEN) + text.count(CLOSE) == tags:  # no letters spell a tag, which only ids can tell from a tag
        assert make().extract_reasoning(text, None) == served(ids, tiny_tokenizer)


@EVERY
@given(st.lists(st.sampled_from(["a.", "Wait, 7", " b\n"]), max_size=4), st.sampled_from(["", "\n\n"]))
def test_thoughts_and_answer_are_those_of_generate(
    make: Make, tiny_tokenizer: ThinkTokenizer, thoughts: list[str], gap: str
) -> None:
    pieces = [part for one in thoughts for part in (OPEN, one, CLOSE)]
    ids = ids_of([*pieces, f"{gap}x = 7"], tiny_tokenizer)
    parsed = parse_response([*ids, tiny_tokenizer.end_id], tiny_tokenizer, [tiny_tokenizer.end_id])
    reasoning, content = make().extract_reasoning(tiny_tokenizer.decode(ids), None)
    assert reasoning == ("\n\n".join(one.strip() for one in parsed.thoughts) or None)
    assert content == parsed.answer.strip() == "x = 7"
    assert make().count_reasoning_tokens(ids) == parsed.thinking_tokens
    after = make().extract_content_ids(ids)
    assert after == (tiny_tokenizer.encode([f"{gap}x = 7"])[0] if thoughts else [])


def test_several_answers_to_a_request_do_not_mix(make: Make) -> None:
    """Some versions of vLLM give the streams of all answers to one object."""
    texts = [f"{OPEN}same{CLOSE}{OPEN}one{CLOSE}1", f"{OPEN}same{CLOSE}2", f"{OPEN}same{CLOSE}{OPEN}three{CLOSE}3"]
    parser, found = make(), ["", "", ""]
    for k in range(max(map(len, texts))):
        for number, text in enumerate(texts):
            if k < len(text):
                delta = parser.extract_reasoning_streaming(text[:k], text[: k + 1], text[k], [], [], [])
                if delta is not None:
                    found[number] += f"[{reasoning_of(delta)}|{delta.content or ''}]"
    joined = ["".join(one.split("[")).replace("|]", "") for one in found]
    assert joined == ["same\n\none|1]", "same|2]", "same\n\nthree|3]"]


def test_a_long_stream_is_read_in_the_time_of_its_text(make: Make) -> None:
    parser, before = make(), ""
    for k in range(2_000):
        parser.extract_reasoning_streaming(before, before + "word ", "word ", [], [], [])
        before += "word "
        assert len(parser._streams) == 1, k


def test_a_prompt_never_ends_the_thinking_and_an_answer_does(make: Make, tiny_tokenizer: ThinkTokenizer) -> None:
    """vLLM asks with the ids of the prompt. Those of earlier answers, and of a tag that a user typed, do not count."""
    parser, opened, closed = make(), tiny_tokenizer.open_id, tiny_tokenizer.close_id
    earlier = [1, *END, opened, 5, closed, 6]
    assert not parser.is_reasoning_end([1, *END])
    assert not parser.is_reasoning_end([*earlier, 1, *END])
    assert not parser.is_reasoning_end([1, closed, 5, *END])
    assert not parser.is_reasoning_end([*earlier, 1, *END, opened, 5])
    assert parser.is_reasoning_end([*earlier, 1, *END, opened, 5, closed])
    assert parser.is_reasoning_end([opened, 5, closed, 5])
    assert not parser.is_reasoning_end([opened, 5, closed, opened, 5])
    assert not parser.is_reasoning_end([])


def test_a_structured_output_begins_at_the_first_closing_tag_and_a_stream_is_read_to_its_end(
    make: Make, tiny_tokenizer: ThinkTokenizer
) -> None:
    asked_only, reads, closed = make(), make(), tiny_tokenizer.close_id
    assert asked_only.is_reasoning_end_streaming([5, closed], [closed])
    assert not asked_only.is_reasoning_end_streaming([5, 5], [5])
    reads.extract_reasoning_streaming("", f"{OPEN}a{CLOSE}", f"{OPEN}a{CLOSE}", [], [5, closed], [5, closed])
    assert not reads.is_reasoning_end_streaming([5, closed], [closed])


def test_the_tags_are_told_to_vllm(make: Make) -> None:
    assert (make().reasoning_start_str, make().reasoning_end_str) == (OPEN, CLOSE)


def test_the_names_and_the_field_before_0_12(
    tmp_path: Path, tiny_tokenizer: ThinkTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_in_place_of_vllm(monkeypatch, old=True)
    parser = imported(written(tmp_path)).ThinkBlocksParser(tiny_tokenizer.full)
    assert parser.extract_reasoning_content(f"{OPEN}a{CLOSE}7", None) == ("a", "7")
    delta = parser.extract_reasoning_content_streaming("", f"{OPEN}a", f"{OPEN}a", [], [], [])
    assert (delta.reasoning_content, delta.content) == ("a", None)


def test_other_tags_are_read_and_another_tokenizer_is_refused(
    tmp_path: Path, tiny_tokenizer: ThinkTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_in_place_of_vllm(monkeypatch)
    kind = imported(written(tmp_path, Tags("[step]", "[/step]"), ())).ThinkBlocksParser
    with pytest.raises(RuntimeError, match=r"no tokens \[step\] and \[/step\]"):
        kind(tiny_tokenizer.full)
    tokenizer: Any = type("Tokenizer", (), {"get_vocab": lambda _: {"[step]": 1, "[/step]": 2}})()
    assert kind(tokenizer).extract_reasoning("[step]a[/step][step]b[/step] 7", None) == ("a\n\nb", "7")
    assert kind(tokenizer).is_reasoning_end([5, 2])  # without the end of a prompt all ids are an answer
